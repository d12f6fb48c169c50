"""The networks that denoise whole images."""
