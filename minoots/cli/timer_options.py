"""Arguments and options that several `minoots timer` commands have, and how they end: with a timer shown."""

import sys
from typing import Annotated, Any

import typer

TimerId = Annotated[str, typer.Argument(metavar="ID", help="The timer's id.", show_default=False)]
Tenant = Annotated[str | None, typer.Option("--tenant", metavar="TENANT", help="Instead of MINOOTS_TENANT.")]
Person = Annotated[
    str | None, typer.Option("--requested-by", metavar="WHO", help="Who asks. [default: your user name]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object, for programs.")]
Version = Annotated[
    int | None,
    typer.Option("--if-version", metavar="N", min=1, help="Only if this is its version still (`get` shows it)."),
]

# When: one of these, or a duration.
At = Annotated[str | None, typer.Option("--at", metavar="INSTANT", help="Once: 2030-01-31T09:00:00Z.")]
Cron = Annotated[str | None, typer.Option("--cron", metavar="EXPR", help='Again and again: "0 9 * * 1-5", @daily.')]
Every = Annotated[str | None, typer.Option("--every", metavar="DURATION", help="Again and again: 15m, 1h30m.")]
Zone = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="Of --cron: Europe/Berlin. [default: UTC]")
]
Schedule = Annotated[
    str | None, typer.Option("--schedule", metavar="FILE|JSON", help='All that a schedule can say: {"specs": [...]}.')
]

# What it is.
Webhooks = Annotated[
    list[str] | None, typer.Option("--webhook", metavar="URL", help="POST there when it fires. Repeatable.")
]
Bundle = Annotated[
    str | None,
    typer.Option("--action-bundle", metavar="FILE|JSON", help='{"actions": [...]}: what to do when it fires.'),
]
Binding = Annotated[
    str | None,
    typer.Option("--agent-binding", metavar="FILE|JSON", help="The agent to wake: {adapter, target, ...}."),
]
Metadata = Annotated[str | None, typer.Option("--metadata", metavar="JSON", help="An object that goes with it.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label. Repeatable.")]


def show_answer(answer: bytes, as_json: bool) -> None:
    """The JSON as it came, or all of the timer for people."""
    import json

    from minoots.cli.show import print_json, show_timer

    if as_json:
        print_json(answer)
    else:
        show_timer(json.loads(answer))
    sys.stdout.flush()


def read_fields(
    webhooks: list[str] | None, bundle: str | None, binding: str | None, metadata: str | None, labels: list[str] | None
) -> dict[str, Any]:
    """The fields of a body that were given."""
    from minoots.cli import timer_request as request
    from minoots.cli.exits import misused

    if webhooks and bundle is not None:
        raise misused("give either --webhook or --action-bundle; a bundle may hold webhooks")
    body: dict[str, Any] = {}
    if metadata is not None:
        body["metadata"] = request.read_json_option("--metadata", metadata)
    if labels:
        body["labels"] = request.read_labels(labels, "=:")
    if webhooks:
        body["actionBundle"] = request.webhook_bundle(webhooks)
    if bundle is not None:
        body["actionBundle"] = request.read_json_or_file("--action-bundle", bundle)
    if binding is not None:
        body["agentBinding"] = request.read_json_or_file("--agent-binding", binding)
    return body
