"""The program `minoots`, also as `python -m minoots`."""

import sys

from minoots.cli.app import run


def main() -> None:
    """Run one command and end with its exit code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
