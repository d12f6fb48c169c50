"""What people read about a generator: ``evaluation.json`` and ``evaluation.html``, one file without a network."""

from pipeline.generation.evaluation_report.figures import Evaluation
from pipeline.generation.evaluation_report.page import render_page
from pipeline.generation.evaluation_report.reading import read_evaluation, side_by_side

__all__ = ["Evaluation", "read_evaluation", "render_page", "side_by_side"]
