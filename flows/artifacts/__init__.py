"""What Prefect's page keeps and shows of a run: reports and their history, trainings and evaluations, progress."""
