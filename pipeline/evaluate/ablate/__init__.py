"""One choice changed at a time around a base configuration."""
