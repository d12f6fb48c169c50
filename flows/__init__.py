"""The Prefect layer: flows, tasks, artifacts. Thin: a flow calls functions of ``pipeline``."""
