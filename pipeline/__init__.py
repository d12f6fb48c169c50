"""Plain functions that join the core: data sources, encode, report, convert, command line. No Prefect here."""
