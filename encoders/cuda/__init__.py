"""Kernels of engine ``cuda``, in Triton; nothing here is imported before the engine is asked for."""
