"""Sizes and the background of images, as options know them; apart from what reads and draws images."""

from __future__ import annotations

MOST_SIZE = 16_384
"""Pixels a side to which a source resizes."""

LARGEST_SIDE = 8192
"""Pixels of the longer side of a rendering."""

BLACK = "#000000"
"""What transparency is laid over where nothing else is asked for."""

BACKGROUND_PATTERN = "^#[0-9a-f]{6}$"
"""How jobs and stores write a colour."""
