"""Engine ``cpu`` and the compiled decoders, in Numba; nothing here is imported before it is asked for."""
