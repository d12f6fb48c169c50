"""``report.html``: the page, its plots, its panels, and what its scripts read."""
