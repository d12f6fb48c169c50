"""Images to a store: the job, the plan, the blocks, the record of the run."""
