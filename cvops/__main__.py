"""Run the command ``cvops`` by ``python -m cvops``."""

from cvops.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
