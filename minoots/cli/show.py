"""How timers and firings look: tables on a terminal, the same lines without colour or folding in a pipe."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minoots.cli.exits import printable
from minoots.cli.schedule_words import describe_schedule, short_schedule
from minoots.cli.words import Shown, describe_attempt, due, fired_late, instant, lateness, local, recurs, span

_COLOURS: Final = {
    "scheduled": "cyan",
    "paused": "yellow",
    "missed": "yellow",
    "fired": "blue",
    "dispatching": "blue",
    "pending": "blue",
    "awaiting": "blue",
    "settled": "green",
    "delivered": "green",
    "confirmed": "green",
    "failed": "bold red",
    "dead": "bold red",
    "overdue": "yellow",
    "cancelled": "magenta",
}
# Below this an id of 36 characters, a status and a time leave no room for a name.
_NARROW: Final = 84
_UNBOUND: Final = 100_000


@cache
def terminal() -> Console:
    """Standard output. A pipe has no width, so that nothing is folded or cut in it."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_UNBOUND)


def print_json(answer: bytes) -> None:
    """The server's JSON, set out for reading; numbers and text as they came. Always UTF-8 (RFC 8259, section 8.1)."""
    typer.echo(msgspec.json.format(answer, indent=2) + b"\n", nl=False)


def say(text: Text | str) -> None:
    """A line, never folded."""
    terminal().print(text if isinstance(text, Text) else Text(printable(text)), soft_wrap=True)


def status_text(status: Any) -> Text:
    """A status in its colour."""
    return Text(printable(str(status)), style=_COLOURS.get(str(status), ""))


def show_timers(timers: Sequence[Shown], now: datetime | None = None) -> None:
    """A row a timer, with schedules if there are any; on a narrow terminal two lines, so that the id stays whole."""
    now = now or datetime.now(UTC)
    any_recurs = any(recurs(timer) for timer in timers)
    table = lean_table("ID", "STATUS", "DUE", *(["SCHEDULE"] if any_recurs else []), "NAME")
    for timer in timers:
        name, status, is_due = (
            printable(str(timer.get("name") or "–")),
            status_text(timer.get("status")),
            _due(timer, now),
        )
        repeats = Text(printable(short_schedule(timer.get("schedule"))), style="dim")
        if terminal().width < _NARROW:
            say(str(timer["id"]))
            say(Text.assemble("  ", name, "  ", status, "  ", is_due, "  " if recurs(timer) else "", repeats))
        else:
            table.add_row(str(timer["id"]), status, is_due, *([repeats] if any_recurs else []), name)
    if table.row_count:
        print_table(table)


def print_table(table: Table) -> None:
    """The table; in a pipe without the blanks that fill up its last column."""
    console = terminal()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def lean_table(*headings: str) -> Table:
    """Columns without lines around them; the last one takes what is left and folds."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold")
    return table


def show_timer(timer: Shown, now: datetime | None = None) -> None:
    """All of one timer."""
    now = now or datetime.now(UTC)
    say(Text.assemble((printable(str(timer.get("name") or "timer")), "bold"), "  ", status_text(timer.get("status"))))
    _show_fields(
        [
            ("id", timer.get("id")),
            ("next" if recurs(timer) else "due", _next(timer, now)),
            ("schedule", describe_schedule(timer.get("schedule"))),
            ("fired", _moment(timer.get("firedAt"), lateness(timer), _how_often(timer))),
            ("missed", timer.get("missed") or None),
            ("settled", _moment(timer.get("settledAt"))),
            ("cancelled", _moment(timer.get("cancelledAt"), timer.get("cancelledBy"), timer.get("cancelReason"))),
            ("failure", timer.get("failureReason")),
            ("tenant", timer.get("tenantId")),
            ("requested by", timer.get("requestedBy")),
            ("created", _moment(timer.get("createdAt"))),
            ("version", timer.get("version")),
            ("labels", ", ".join(f"{key}={value}" for key, value in (timer.get("labels") or {}).items())),
            ("metadata", _json(timer.get("metadata"))),
            *((f"action {action.get('id')}", _describe_action(action)) for action in _actions(timer)),
            ("agent", _json(timer.get("agentBinding"))),
        ]
    )


def show_preview(instants: Sequence[Shown], now: datetime | None = None) -> None:
    """A line an instant: on the clocks of the schedule's zone, from now, and what a change of the zone did to it."""
    now = now or datetime.now(UTC)
    if not instants:
        say("none: it has come to its end by then")
        return
    table = lean_table("LOCAL", "DUE", "UTC", "NOTE")
    for shown in instants:
        at = instant(shown.get("at"))
        cells = (shown.get("local"), _away(at, now) if at else "", shown.get("at"), shown.get("note"))
        table.add_row(*(printable(str(cell or "")) for cell in cells))
    print_table(table)


def show_firings(firings: Sequence[Shown]) -> None:
    """A row a firing, as they come: the latest first."""
    table = lean_table("OCCURRENCE", "STATUS", "LATE BY", "FIRED")
    for firing in firings:
        fired = instant(firing.get("firedAt"))
        table.add_row(
            str(firing.get("occurrence")),
            status_text(firing.get("status")),
            span(float(firing.get("latenessMs") or 0) / 1000),
            local(fired) if fired else "–",
        )
    print_table(table)


def show_firing(firing: Shown) -> None:
    """One firing with its deliveries and their attempts."""
    say(Text.assemble((f"firing {firing.get('occurrence')}", "bold"), "  ", status_text(firing.get("status"))))
    # They differ by jitter, or by an earlier firing that was waited for.
    nominal, due_at = _moment(firing.get("nominalAt")), _moment(firing.get("dueAt"))
    _show_fields(
        [
            ("timer", firing.get("timerId")),
            ("scheduled", nominal if nominal != due_at else None),
            ("due", due_at),
            ("fired", _moment(firing.get("firedAt"), fired_late(firing))),
            ("settled", _moment(firing.get("settledAt"))),
        ]
    )
    for delivery in firing.get("deliveries") or ():
        say("")
        head = f"{delivery.get('actionId')}  ({delivery.get('kind')}, {delivery.get('lane')})"
        say(Text.assemble("  ", printable(head), "  ", status_text(delivery.get("status"))))
        _show_fields(
            [
                *((f"attempt {a.get('attempt')}", describe_attempt(a)) for a in delivery.get("attempts") or ()),
                ("next attempt", _moment(delivery.get("nextAttemptAt"))),
                ("gave up", _moment(delivery.get("deadAt"), delivery.get("deadReason"))),
            ],
            indent=4,
        )


def _show_fields(fields: Sequence[tuple[str, Any]], indent: int = 2) -> None:
    """What has a value, one a line."""
    there = [(name, str(value)) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in there), default=0)
    for name, value in there:
        say(Text.assemble(" " * indent, (f"{printable(name):<{width}}  ", "dim"), printable(value)))


def _due(timer: Shown, now: datetime) -> Text:
    text = due(timer, now)
    return Text(text, style="yellow" if text.startswith("late") else "")


def _next(timer: Shown, now: datetime) -> str | None:
    """When it is due and in how long; of a recurring one also that this is still to be found out."""
    in_words = due(timer, now) if timer.get("status") == "scheduled" else None
    return _moment(timer.get("fireAt"), in_words) or in_words


def _how_often(timer: Shown) -> str | None:
    often = timer.get("occurrence") or 0
    return f"{often} times so far" if recurs(timer) and often > 1 else None


def _away(at: datetime, now: datetime) -> str:
    ahead = (at - now).total_seconds()
    return f"in {span(ahead)}" if ahead >= 0 else f"{span(-ahead)} ago"


def _moment(value: Any, *remarks: str | None) -> str | None:
    moment = instant(value)
    if moment is None:
        return None
    return ", ".join([local(moment), *(remark for remark in remarks if remark)])


def _actions(timer: Shown) -> Sequence[Shown]:
    return (timer.get("actionBundle") or {}).get("actions") or ()


def _describe_action(action: Shown) -> str:
    parameters = action.get("parameters") or {}
    if action.get("kind") == "webhook":
        return f"webhook {parameters.get('method') or 'POST'} {parameters.get('url')}"
    return f"{action.get('kind')} {_json(parameters)}"


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
