"""What a thing is, in memory and on disk: splats, stores, their records and errors.

Nothing here imports torch or Prefect, so a store can be read with numpy, zarr and h5py alone.
"""
