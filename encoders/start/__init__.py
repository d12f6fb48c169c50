"""Where the Gaussians of a fit begin."""
