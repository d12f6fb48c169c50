"""How good a run's images are, and the page that says so."""
