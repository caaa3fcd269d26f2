"""What `minoots timer watch` sees and says of a timer, over answers as REST would give them."""

import json
from typing import Any

import pytest

from minoots.cli import watch
from minoots.cli.exits import Unreachable
from minoots.cli.watch import Narrator, exit_code, follow

AT = "2026-01-01T00:00:00.000000Z"


class Answers:
    """An Api whose timer goes through these states, a step each time it is looked at."""

    def __init__(self, *timers: dict[str, Any] | Unreachable, firings: dict[int, list[str]] | None = None) -> None:
        self._timers = list(timers)
        self._firings = firings or {}
        self.asked: list[str] = []

    def get(self, path: str) -> bytes:
        self.asked.append(path)
        if "/firings/" in path:
            occurrence = int(path.rsplit("/", 1)[1])
            left = self._firings[occurrence]
            status = left.pop(0) if len(left) > 1 else left[0]
            return json.dumps(firing(occurrence, status)).encode()
        found = self._timers.pop(0) if len(self._timers) > 1 else self._timers[0]
        if isinstance(found, Unreachable):
            raise found
        return json.dumps(found).encode()


def firing(occurrence: int, status: str) -> dict[str, Any]:
    return {"occurrence": occurrence, "status": status, "firedAt": AT, "latenessMs": 2.0, "deliveries": []}


def recurring(status: str = "scheduled", occurrence: int = 0, **fields: Any) -> dict[str, Any]:
    schedule = {"specs": [{"every": "15m"}]}
    return {"id": "1", "status": status, "occurrence": occurrence, "schedule": schedule, "missed": 0} | fields


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks."""
    monkeypatch.setattr(watch, "_sleep", lambda *_: None)


def watched(api: Answers, firings: int | None = None) -> int:
    narrator = Narrator(firings)
    for sight in follow(api, "1", None, firings):  # type: ignore[arg-type] # it needs no more than `get`
        narrator.tell(sight)
    return exit_code(sight)


def test_a_recurring_timer_is_followed_past_its_firings_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    api = Answers(
        recurring(occurrence=4),
        recurring(occurrence=6, missed=3),
        recurring("paused", 6, missed=3),
        recurring("settled", 6, missed=3, settledAt=AT),
        firings={4: ["settled"], 5: ["settled"], 6: ["settled"]},
    )
    assert watched(api) == 0
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "scheduled  every 15m, next: none planned; watching until it ends, or Ctrl-C",
        "fired  occurrence 5: late by 2 ms",
        "fired  occurrence 6: late by 2 ms",
        "missed  3, 3 in all",
        "next: none planned",
        "paused",
        "settled",
    ]


def test_asked_for_some_firings_it_ends_with_them_and_with_their_result(capsys: pytest.CaptureFixture[str]) -> None:
    api = Answers(
        recurring(), recurring(occurrence=3), firings={1: ["dispatching", "settled"], 2: ["dispatching", "failed"]}
    )
    assert watched(api, 2) == 1
    out = capsys.readouterr().out
    assert "watching for 2 firings" in out
    assert "occurrence 3" not in out
    good = Answers(recurring(), recurring(occurrence=2), firings={1: ["dispatching", "dispatching", "settled"]})
    assert watched(good, 1) == 0


def test_a_recurring_timer_that_ends_before_the_firings_that_were_asked_for_ends_the_watch() -> None:
    assert watched(Answers(recurring(), recurring("cancelled", cancelledAt=AT)), 5) == 1
    assert watched(Answers(recurring(), recurring("settled", settledAt=AT)), 5) == 0


def test_when_the_server_goes_away_between_two_looks_no_firing_is_passed_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Flaky(Answers):
        def get(self, path: str) -> bytes:
            if path.endswith("/firings/1") and path not in self.asked:
                self.asked.append(path)
                raise Unreachable("away; try again")
            return super().get(path)

    api = Flaky(recurring(), recurring(occurrence=1), recurring("settled", 1, settledAt=AT), firings={1: ["settled"]})
    assert watched(api) == 0
    assert capsys.readouterr().out.count("fired  occurrence 1") == 1


def test_a_waiting_timer_that_was_moved_is_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    once = {"id": "1", "occurrence": 0, "schedule": None}
    api = Answers(
        once | {"status": "scheduled", "version": 1, "fireAt": "2099-01-01T00:00:00Z"},
        once | {"status": "paused", "version": 2, "fireAt": "2099-01-01T00:00:00Z"},
        once | {"status": "scheduled", "version": 3, "fireAt": "2098-01-01T00:00:00Z"},
        once | {"status": "cancelled", "version": 4, "cancelledAt": AT, "cancelledBy": "ann"},
    )
    assert watched(api) == 1
    told = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert told == ["scheduled", "paused", "scheduled", "cancelled"]


def test_a_firing_that_is_under_way_is_followed_when_no_number_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    timers = (recurring(occurrence=2), recurring("settled", 2, settledAt=AT))
    assert watched(Answers(*timers, firings={2: ["dispatching", "dispatching", "settled"]})) == 0
    assert "fired  occurrence 2" in capsys.readouterr().out
