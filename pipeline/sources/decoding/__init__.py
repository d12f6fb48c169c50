"""One image file to 8-bit pixels, or why not."""
