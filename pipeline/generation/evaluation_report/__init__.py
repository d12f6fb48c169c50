"""What people read about a generator: ``evaluation.json`` and ``evaluation.html``, one file without a network."""
