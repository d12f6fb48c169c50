"""Between zarr, HDF5 and the published layouts."""
