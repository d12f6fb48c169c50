"""What people read about a generator: ``evaluation.json`` and ``evaluation.html``, one file without a network."""

from pipeline.generation.evaluation_report.figures import Evaluation
from pipeline.generation.evaluation_report.page import render_page

__all__ = ["Evaluation", "render_page"]
