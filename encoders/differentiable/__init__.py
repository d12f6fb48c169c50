"""Renderers with gradients, compiled: splats on whole images and on patches."""
