"""`minoots timer …`: create, get, list, cancel, watch and look at firings, through REST."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from minoots.cli.timer_changes import add_changes
from minoots.cli.timer_options import (
    AsJson,
    At,
    Binding,
    Bundle,
    Cron,
    Every,
    Labels,
    Metadata,
    Person,
    Schedule,
    Tenant,
    TimerId,
    Webhooks,
    Zone,
    read_fields,
    show_answer,
)

app = typer.Typer(no_args_is_help=True, help="Create timers, look at them, change and cancel them.")


class Status(StrEnum):
    """What a timer can be."""

    scheduled = "scheduled"
    paused = "paused"
    fired = "fired"
    settled = "settled"
    failed = "failed"
    cancelled = "cancelled"


@app.command()
def create(
    duration: Annotated[
        str | None, typer.Argument(metavar="DURATION", help="30s, 1h30m, PT30S. Left out where an option says when.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What people call it.")] = None,
    at: At = None,
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = None,
    schedule: Schedule = None,
    webhook: Webhooks = None,
    action_bundle: Bundle = None,
    agent_binding: Binding = None,
    metadata: Metadata = None,
    label: Labels = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Repeat the command with it, and there is still one timer.")
    ] = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Schedule a timer: minoots timer create 30s coffee-break --webhook https://example.com/hook"""
    from minoots.cli.client import Api
    from minoots.cli.timer_request import WhenOptions, person, read_when

    when, name = read_when([duration, name], WhenOptions(at, cron, every, timezone, schedule))
    body: dict[str, Any] = {"requestedBy": requested_by or person(), **when}
    if name is not None:
        body["name"] = name
    body |= read_fields(webhook, action_bundle, agent_binding, metadata, label)
    show_answer(Api.from_env(tenant=tenant).post("/timers", body, idempotency_key=idempotency_key), as_json)


@app.command()
def get(timer_id: TimerId, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show one timer."""
    from minoots.cli.client import Api, timer_path

    show_answer(Api.from_env(tenant=tenant).get(timer_path(timer_id)), as_json)


@app.command("list")
def list_timers(
    status: Annotated[list[Status] | None, typer.Option(help="Only these. Repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K:V", help="Only with this label. Repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Only with exactly this name.")] = None,
    due_before: Annotated[str | None, typer.Option(metavar="INSTANT", help="Only those due before.")] = None,
    due_after: Annotated[str | None, typer.Option(metavar="INSTANT", help="Only those due after.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    everything: Annotated[bool, typer.Option("--all", help="All there are, however many.")] = False,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """List timers, the newest first."""
    from minoots.cli import timer_request as request
    from minoots.cli.client import Api
    from minoots.cli.show import print_json, say, show_timers

    query = [("status", wanted.value) for wanted in status or ()]
    query += [("label", f"{key}:{value}") for key, value in request.read_labels(label or (), ":=").items()]
    query += [(k, v) for k, v in (("name", name), ("dueBefore", due_before), ("dueAfter", due_after)) if v is not None]
    items: list[Any] = []
    cursor: str | None = None
    for page, cursor in _pages(Api.from_env(tenant=tenant), query, None if everything else limit):  # noqa: B007
        items += page
    if as_json:
        import msgspec

        print_json(msgspec.json.encode({"items": items, "nextCursor": cursor}))
        return
    import json

    if items:
        show_timers([json.loads(bytes(item)) for item in items])
    else:
        say("no timers" + (" like that" if query else "; make one: minoots timer create 30s coffee-break"))
    if cursor is not None:
        typer.echo(f"the newest {len(items)} of more; --limit N or --all shows them", err=True)


@app.command()
def cancel(
    timer_id: TimerId,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept with the timer.")] = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a timer that has not fired; one that is cancelled already stays as it is."""
    from minoots.cli.client import Api, timer_path
    from minoots.cli.timer_request import person

    body = {"requestedBy": requested_by or person()} | ({} if reason is None else {"reason": reason})
    answer = Api.from_env(tenant=tenant).post(timer_path(timer_id, "cancel"), body, repeatable=True)
    show_answer(answer, as_json)


add_changes(app)


@app.command()
def watch(
    timer_id: TimerId,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Give up after this long, with exit code 1.")
    ] = None,
    firings: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=100, help="Of a recurring timer, only its next N firings.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Follow a timer until it has ended: 0 when that was well, 1 when it failed or was cancelled.

    A recurring timer goes on after each firing, and so does the watch; --firings 1 follows the next firing to its end,
    and its result counts.
    """
    from minoots.cli.client import Api
    from minoots.cli.show import print_json
    from minoots.cli.timer_request import read_timeout
    from minoots.cli.watch import Narrator, exit_code, follow

    narrator = Narrator(firings)
    patience = None if timeout is None else read_timeout(timeout)
    for sight in follow(Api.from_env(tenant=tenant), timer_id, patience, firings):
        if not as_json:
            narrator.tell(sight)
    if as_json:
        print_json(sight.answer)
    raise typer.Exit(exit_code(sight))


@app.command()
def wait(
    timer_id: TimerId,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Give up after this long, with exit code 1.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a timer has ended, and show it: 0 when that was well, 1 when it failed or was cancelled.

    `watch` tells what happens on the way; this asks the server to answer when it is over, and says nothing else.
    """
    from minoots.cli.client import Api
    from minoots.cli.timer_request import read_timeout
    from minoots.cli.wait import ended_badly, wait_for

    answer = wait_for(Api.from_env(tenant=tenant), timer_id, None if timeout is None else read_timeout(timeout))
    show_answer(answer, as_json)
    raise typer.Exit(ended_badly(answer))


@app.command()
def firings(
    timer_id: TimerId,
    occurrence: Annotated[
        int | None, typer.Argument(metavar="OCCURRENCE", min=1, help="This one, with deliveries and attempts.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """List a timer's firings, the latest first, or show one with what its actions did."""
    import json

    from minoots.cli.client import Api, timer_path
    from minoots.cli.show import print_json, say, show_firing, show_firings

    path = timer_path(timer_id, "firings", *([] if occurrence is None else [occurrence]))
    answer = Api.from_env(tenant=tenant).get(path)
    if as_json:
        print_json(answer)
    elif occurrence is not None:
        show_firing(json.loads(answer))
    elif items := json.loads(answer)["items"]:
        show_firings(items)
    else:
        say("it has not fired yet")


def _pages(api: Any, query: list[tuple[str, str]], most: int | None) -> Iterator[tuple[list[Any], str | None]]:
    """Pages of raw timers with the cursor behind each, until there are no more or `most` were seen."""
    import msgspec

    class Page(msgspec.Struct, rename="camel"):
        items: list[msgspec.Raw]
        next_cursor: str | None = None

    cursor, seen = None, 0
    while most is None or seen < most:
        size = 500 if most is None else min(500, most - seen)
        paging = [("limit", str(size)), *([("cursor", cursor)] if cursor else [])]
        page = msgspec.json.decode(api.get("/timers", [*query, *paging]), type=Page)
        seen, cursor = seen + len(page.items), page.next_cursor
        yield page.items, cursor
        if cursor is None:
            return
