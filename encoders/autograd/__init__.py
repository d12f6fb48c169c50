"""Engines on torch's automatic gradients: ``reference`` and ``gsplat``."""
