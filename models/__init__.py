"""Generators that are trained on stores of Gaussians."""
