"""Stores as data sets of torch, for other people's training code."""
