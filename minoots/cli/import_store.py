"""`minoots import FILE`: brings what still waits in the prototype's JSON store into MINOOTS, through REST."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from minoots.cli.client import Api, Refused
    from minoots.cli.exits import Unreachable
    from minoots.cli.prototype import OldTimer

Outcome = Literal["taken", "overdue", "there", "ended", "refused"]

_STYLES = {"taken": "green", "overdue": "yellow", "refused": "bold red"}
_WORDS = {"taken": "taken", "overdue": "taken, overdue", "there": "left", "ended": "left", "refused": "refused"}
# The prototype's settings, which other commands answer with a pointer to this one.
_FORMER = ("TIMER_STORE_PATH", "KERNEL_PERSIST_PATH")
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one old timer. `timer_id` is the new one's, where there is one."""

    old_id: str
    name: str | None
    outcome: Outcome
    reason: str | None
    timer_id: str | None = None


def import_timers(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The JSON file that the prototype kept its timers in.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="TENANT", help="Take them all into this tenant.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object, for programs.")] = False,
) -> None:
    """Take over the timers of the JSON prototype that still wait. It may be run twice.

    What fell due while the prototype was down fires at once. What has ended stays behind, and so does what is here
    already (it has the label imported-from). Exit code 4 says that some broke a rule; the rest is taken all the same.
    """
    from minoots.cli.client import Api
    from minoots.cli.exits import REFUSED, Unreachable
    from minoots.cli.prototype import read_store

    store = read_store(file)
    api = Api.from_env({name: value for name, value in os.environ.items() if name not in _FORMER}, tenant)
    entries: list[Entry] = []
    away: Unreachable | None = None
    try:
        for entry in _take_all(api, store, tenant, dry_run):
            entries.append(entry)
    except Unreachable as lost:
        away = lost
    if entries or away is None:
        _report(api.url, entries, len(store), dry_run=dry_run, as_json=as_json)
    if away is not None:
        raise _unfinished(away, len(entries), len(store))
    if any(entry.outcome == "refused" for entry in entries):
        raise typer.Exit(REFUSED)


def _take_all(api: "Api", store: list[tuple[str, Any]], tenant: str | None, dry_run: bool) -> Iterator[Entry]:
    """One after the other; one that cannot be taken does not stop the rest. Raises Unreachable."""
    from minoots.cli.client import Refused, ServerFault
    from minoots.cli.prototype import Ended, NotTaken, convert

    for key, old in store:
        name = old.get("name") if isinstance(old, dict) and isinstance(old.get("name"), str) else None
        try:
            timer = convert(key, old, tenant)
            yield _take(api, timer, name, dry_run)
        except NotTaken as left:
            yield Entry(key, name, "ended" if isinstance(left, Ended) else "refused", str(left))
        except Refused as refused:
            if refused.problem.status == 401:
                raise
            yield Entry(key, name, "refused", refused.sentence.replace("\n", "; "))
        except ServerFault as fault:
            # A fault with one timer; when the server is away it answers 503, or something before it 502 or 504.
            if fault.status != 500:
                raise
            yield Entry(key, name, "refused", fault.sentence)


def _take(api: "Api", timer: "OldTimer", name: str | None, dry_run: bool) -> Entry:
    """Look whether it is here, else create it. A key makes it one timer also when two imports run at once."""
    import json
    import time
    from datetime import UTC, datetime

    from minoots.cli.client import Refused
    from minoots.cli.prototype import MARK

    for tries_left in reversed(range(_TRIES)):
        query = [("label", f"{MARK}:{timer.old_id}"), ("limit", "1")]
        found = json.loads(api.get("/timers", query, timer.tenant_id))["items"]
        if found:
            return Entry(timer.old_id, name, "there", "it was imported before", found[0]["id"])
        now = datetime.now(UTC)
        outcome: Outcome = "overdue" if timer.is_overdue(now) else "taken"
        reason = f"was due {timer.fire_at:%Y-%m-%d %H:%M:%S} UTC; fires at once" if outcome == "overdue" else None
        if dry_run:
            return Entry(timer.old_id, name, outcome, reason)
        body = timer.request(now) | ({"tenantId": timer.tenant_id} if timer.tenant_id else {})
        try:
            made = json.loads(api.post("/timers", body, idempotency_key=timer.idempotency_key()))
        except Refused as refused:
            wait = _worth_waiting(refused)
            if wait is None or not tries_left:
                raise
            time.sleep(wait)
            continue
        return Entry(timer.old_id, name, outcome, reason, made["id"])
    raise AssertionError("unreachable")


def _worth_waiting(refused: "Refused") -> float | None:
    """Seconds until it makes sense to ask again: under a quota, or while another import has the same timer."""
    if refused.problem.status == 429:
        return min(refused.problem.retry_after or 1.0, 60.0)
    return 0.5 if refused.problem.status == 409 else None


def _unfinished(away: "Unreachable", done: int, total: int) -> "Unreachable":
    from minoots.cli.exits import Unreachable

    if not done:
        return away
    return Unreachable(f"{away.sentence}\n{done} of {total} timers were looked at; run it again to take the rest")


def _report(url: str, entries: list[Entry], total: int, *, dry_run: bool, as_json: bool) -> None:
    counts = {word: sum(entry.outcome == word for entry in entries) for word in (*_WORDS,)}
    if as_json:
        import msgspec

        from minoots.cli.show import print_json

        summary = {**counts, "total": total, "dryRun": dry_run, "url": url}
        items = [
            {"id": e.old_id, "name": e.name, "outcome": e.outcome, "reason": e.reason, "timerId": e.timer_id}
            for e in entries
        ]
        print_json(msgspec.json.encode({"items": items, "summary": summary}))
        return
    _show_table(entries)
    from minoots.cli.show import say

    taken = counts["taken"] + counts["overdue"]
    left = counts["there"] + counts["ended"]
    details = [f"{counts['ended']} had ended"] * bool(counts["ended"])
    details += [f"{counts['there']} were here already"] * bool(counts["there"])
    say(
        f"{'would be ' if dry_run else ''}taken {taken}"
        + (
            f" ({counts['overdue']} overdue: {'fires' if counts['overdue'] == 1 else 'fire'} at once)"
            if counts["overdue"]
            else ""
        )
        + f", left {left}"
        + (f" ({', '.join(details)})" if details else "")
        + f", refused {counts['refused']}; of {total} timers, to {url}"
    )


def _show_table(entries: list[Entry]) -> None:
    """A row a timer: the old id, what became of it, and the new id or why not."""
    if not entries:
        return
    from rich.text import Text

    from minoots.cli.exits import printable
    from minoots.cli.show import lean_table, print_table, say

    table = lean_table("OLD ID", "OUTCOME", "NAME", "NEW ID, OR WHY")
    for entry in entries:
        outcome = Text(_WORDS[entry.outcome], style=_STYLES.get(entry.outcome, "dim"))
        remark = ": ".join(part for part in (entry.timer_id, entry.reason) if part)
        table.add_row(printable(entry.old_id or "–"), outcome, printable(entry.name or "–"), printable(remark or "–"))
    print_table(table)
    say("")
