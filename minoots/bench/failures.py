"""How a measurement ends when it cannot be made."""

import importlib.util

from minoots.errors import ConfigError, MinootsError


class BenchFailed(MinootsError):
    """The measurement could not be made."""


def require_parts(plots: bool) -> None:
    """Say in time what is not installed; raises ConfigError."""
    for package in ("psutil", *(["matplotlib"] if plots else [])):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f'`minoots bench` needs {package}; run: pip install "minoots[bench]"')
