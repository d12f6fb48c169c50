"""The Prefect server, the runners that serve deployments, and their first set-up."""
