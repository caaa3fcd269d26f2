"""A process uses what the system allows it, and knows how many connections that is."""

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from minoots import wiring
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


def test_an_orchestrator_takes_no_more_than_there_can_be_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "connections_possible", lambda: 300)
    with capture_logs() as lines:
        assert wiring._affordable(100) == 100
        assert lines == []
        assert wiring._affordable(512) == 150, "twice so many are under way"
    assert [line["event"] for line in lines] == ["orchestrator.few_files"]
