"""``python -m pipeline`` is ``splatspace``."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
