"""The patch models: one trunk, four heads."""
