"""One image's splats, or a run's graph, for other programs."""
