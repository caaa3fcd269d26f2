"""A process uses what the system allows it, and knows how many connections that is."""

import subprocess
import sys

import pytest

from minoots.runtime.files import KEPT

_PRINT = (
    "from minoots.runtime.files import connections_possible, raise_limit; raise_limit(); print(connections_possible())"
)


@pytest.mark.parametrize(("limits", "possible"), [
    ("ulimit -S -n 300 && ulimit -H -n 1000", 1000 - KEPT),
    ("ulimit -n 300", 300 - KEPT),
    ("ulimit -n 100", 2),
])  # fmt: skip
def test_the_soft_limit_is_raised_to_the_hard_one(limits: str, possible: int) -> None:
    ran = subprocess.run(
        ["sh", "-c", f'{limits} && exec "$0" -c "$1"', sys.executable, _PRINT],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.stdout.strip(), ran.stderr) == (str(possible), "")
