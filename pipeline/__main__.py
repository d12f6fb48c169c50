"""``python -m pipeline`` is ``splatspace``."""

from splatspace import main

if __name__ == "__main__":
    main()
