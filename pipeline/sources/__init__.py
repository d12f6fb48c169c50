"""Where images come from: one file per data set, one line each in the table of ``pipeline.presets``."""
