"""Training a generator: the job, the rows, the loop, its state, log and card."""
