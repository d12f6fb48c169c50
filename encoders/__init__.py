"""From pixels to Gaussians and back: engines that fit, and renderers that decode."""
