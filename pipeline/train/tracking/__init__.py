"""What a training says while it runs: its own log, and trackers of experiments."""
