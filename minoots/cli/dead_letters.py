"""`minoots dead-letters list|redrive`: what gave up, and opening it again, through REST."""

from typing import Annotated, Any

import typer

from minoots.cli.timer_options import AsJson, Person, Tenant

app = typer.Typer(no_args_is_help=True, help="Deliveries that gave up: look at them, and open them again.")

OfTimer = Annotated[str | None, typer.Option("--timer", metavar="ID", help="Only this timer's.")]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only webhook, agent_prompt, command, …")]
Lane = Annotated[str | None, typer.Option("--lane", metavar="LANE", help="Only to this destination.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Only with this in the reason.")]
Since = Annotated[str | None, typer.Option("--since", metavar="INSTANT", help="Dead then or later.")]
Until = Annotated[str | None, typer.Option("--until", metavar="INSTANT", help="Dead before that.")]


@app.command("list")
def list_dead(
    timer: OfTimer = None, kind: Kind = None, lane: Lane = None, reason: Reason = None, since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="How many at most.")] = 50,
    tenant: Tenant = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """List what gave up, the newest first."""
    import json

    from minoots.cli.client import Api
    from minoots.cli.exits import printable
    from minoots.cli.show import lean_table, print_json, print_table, say
    from minoots.cli.words import instant, local

    wanted = list(_wanted(timer, kind, lane, reason, since, until).items())
    api = Api.from_env(tenant=tenant)
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None and len(items) < limit:
        paging = [("limit", str(min(500, limit - len(items)))), *([("cursor", cursor)] if cursor else [])]
        page: dict[str, Any] = json.loads(api.get("/dead-letters", [*wanted, *paging]))
        items += page["items"]
        cursor = page["nextCursor"]
    if as_json:
        print_json(json.dumps({"items": items, "nextCursor": cursor}).encode())
        return
    if not items:
        say("nothing has given up")
        return
    table = lean_table("DELIVERY", "DEAD SINCE", "TRIES", "LANE", "REASON")
    for item in items:
        dead_at = instant(item["deadAt"])
        cells = (
            f"{item['timerId']}/{item['occurrence']}/{item['actionId']}",
            local(dead_at) if dead_at else "–",
            item["attemptCount"],
            item["lane"],
            item["deadReason"],
        )
        table.add_row(*(printable(str(cell)) for cell in cells))
    print_table(table)
    if cursor is not None:
        say(f"these are the newest {len(items)}; --limit shows more")


@app.command()
def redrive(
    deliveries: Annotated[
        list[str] | None,
        typer.Argument(metavar="DELIVERY...", help="As `list` shows them: TIMER/OCCURRENCE/ACTION."),
    ] = None,
    timer: OfTimer = None, kind: Kind = None, lane: Lane = None, reason: Reason = None, since: Since = None,
    until: Until = None,
    every_one: Annotated[bool, typer.Option("--all", help="Every dead letter of the tenant.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many that would be.")] = False,
    per_second: Annotated[
        float | None, typer.Option("--per-second", metavar="N", help="Spread them: N become due a second.")
    ] = None,
    requested_by: Person = None, tenant: Tenant = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Open deliveries again: those that are named, or those that the options select. Safe to repeat."""
    import json

    from minoots.cli.client import Api
    from minoots.cli.exits import misused
    from minoots.cli.show import print_json, say
    from minoots.cli.timer_request import person

    wanted = _wanted(timer, kind, lane, reason, since, until)
    if sum((bool(deliveries), bool(wanted), every_one)) != 1:
        raise misused("say which: name deliveries, or narrow with --timer, --lane and the like, or give --all")
    which: dict[str, Any] = {"deliveries": [_key(text) for text in deliveries]} if deliveries else {"filter": wanted}
    body = which | {"requestedBy": requested_by or person(), "dryRun": dry_run, "perSecond": per_second}
    answer = Api.from_env(tenant=tenant).post("/dead-letters/redrive", body)
    if as_json:
        print_json(answer)
        return
    done = json.loads(answer)
    say(f"{done['matched']} would be opened again" if dry_run else f"{done['redriven']} opened again")


def _wanted(
    timer: str | None, kind: str | None, lane: str | None, reason: str | None, since: str | None, until: str | None
) -> dict[str, str]:
    given = {"timerId": timer, "kind": kind, "lane": lane, "reason": reason, "since": since, "until": until}
    return {name: value for name, value in given.items() if value is not None}


def _key(text: str) -> dict[str, Any]:
    from minoots.cli.exits import misused

    parts = text.split("/")
    if len(parts) != 3 or not parts[1].isdecimal():
        raise misused(f"{text!r} is no delivery; write TIMER/OCCURRENCE/ACTION, as `list` shows it")
    return {"timerId": parts[0], "occurrence": int(parts[1]), "actionId": parts[2]}
