"""``python -m cvops`` is ``cvops``."""

from cvops.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
