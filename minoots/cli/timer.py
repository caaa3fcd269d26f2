"""`minoots timer …`: create, get, list, cancel, watch and look at firings, through REST."""

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Create timers, look at them, cancel them.")

# Options that several commands have.
TimerId = Annotated[str, typer.Argument(metavar="ID", help="The timer's id.", show_default=False)]
Tenant = Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Instead of MINOOTS_TENANT.")]
Person = Annotated[
    str | None, typer.Option("--requested-by", metavar="WHO", help="Who asks. [default: your user name]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object, for programs.")]


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
        str | None, typer.Argument(metavar="DURATION", help="30s, 1h30m, PT30S. With --at it is left out.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What people call it.")] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="When: 2030-01-31T09:00:00+01:00.")] = None,
    webhook: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="POST there when it fires. Repeatable.")
    ] = None,
    action_bundle: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help='{"actions": [...]}: what to do when it fires.')
    ] = None,
    agent_binding: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="The agent to wake: {adapter, target, ...}.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="An object that goes with it.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="A label. Repeatable.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Repeat the command with it, and there is still one timer.")
    ] = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Schedule a timer: minoots timer create 30s coffee-break --webhook https://example.com/hook"""
    from minoots.cli import timer_request as request
    from minoots.cli.client import Api
    from minoots.cli.exits import misused

    if webhook and action_bundle:
        raise misused("give either --webhook or --action-bundle; a bundle may hold webhooks")
    instant, name = request.read_instant_words(duration, name, at)
    body: dict[str, Any] = {"requestedBy": requested_by or request.person(), **instant}
    if name is not None:
        body["name"] = name
    if metadata is not None:
        body["metadata"] = request.read_json_option("--metadata", metadata)
    if label:
        body["labels"] = request.read_labels(label, "=:")
    if webhook:
        body["actionBundle"] = request.webhook_bundle(webhook)
    if action_bundle is not None:
        body["actionBundle"] = request.read_json_or_file("--action-bundle", action_bundle)
    if agent_binding is not None:
        body["agentBinding"] = request.read_json_or_file("--agent-binding", agent_binding)
    answer = Api.from_env(tenant=tenant).post("/timers", body, idempotency_key=idempotency_key)
    _show_timer(answer, as_json)


@app.command()
def get(timer_id: TimerId, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Show one timer."""
    from minoots.cli.client import Api, timer_path

    _show_timer(Api.from_env(tenant=tenant).get(timer_path(timer_id)), as_json)


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
    _show_timer(answer, as_json)


@app.command()
def watch(
    timer_id: TimerId,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Give up after this long, with exit code 1.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Follow a timer until it has ended: 0 when that was well, 1 when it failed or was cancelled."""
    from minoots.cli.client import Api
    from minoots.cli.show import print_json
    from minoots.cli.timer_request import read_timeout
    from minoots.cli.watch import Narrator, exit_code, follow

    narrator = Narrator()
    for sight in follow(Api.from_env(tenant=tenant), timer_id, None if timeout is None else read_timeout(timeout)):
        if not as_json:
            narrator.tell(sight)
    if as_json:
        print_json(sight.answer)
    raise typer.Exit(exit_code(sight.timer))


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


def _show_timer(answer: bytes, as_json: bool) -> None:
    """The JSON as it came, or all of the timer for people."""
    import json

    from minoots.cli.show import print_json, show_timer

    if as_json:
        print_json(answer)
    else:
        show_timer(json.loads(answer))
    sys.stdout.flush()
