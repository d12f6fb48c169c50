"""Layouts in which others published Gaussians of images, and the way from each to the columns of a store and back.

docs/convert.md describes every layout, its conventions, and what a conversion changes. One file per layout; this
package computes with numpy and reads HDF5. Files of torch tensors are read by ``pipeline.convert.torch_folder``.
"""

from __future__ import annotations

from data_schemas.published_layouts.detect import LAYOUT_NAMES, detect_layout
from data_schemas.published_layouts.options import ConversionOptions
from data_schemas.published_layouts.rows import RowSink, RowSource, Survey

__all__ = ["LAYOUT_NAMES", "ConversionOptions", "RowSink", "RowSource", "Survey", "detect_layout"]
