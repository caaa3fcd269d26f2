"""`minoots timer …` for what is there already: pause, resume, reschedule, fire, update, put; and preview a schedule."""

from enum import StrEnum
from typing import Annotated, Any

import typer

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
    Version,
    Webhooks,
    Zone,
    read_fields,
    show_answer,
)

Duration = Annotated[
    str | None, typer.Argument(metavar="DURATION", help="From now: 30s, 1h30m, PT30S.", show_default=False)
]


class Field(StrEnum):
    """What a timer may be without."""

    name = "name"
    labels = "labels"
    metadata = "metadata"
    action_bundle = "action-bundle"
    agent_binding = "agent-binding"


def pause(timer_id: TimerId, requested_by: Person = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Hold a timer back until it is resumed."""
    _ask(timer_id, "pause", {}, requested_by, tenant, as_json)


def resume(
    timer_id: TimerId,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Fire what came due meanwhile, as the schedule's catchUp says.")
    ] = False,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused timer go on: a recurring one with its next instant, one whose instant has passed at once."""
    _ask(timer_id, "resume", {"catchUp": catch_up}, requested_by, tenant, as_json)


def reschedule(
    timer_id: TimerId,
    duration: Duration = None,
    at: At = None,
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = None,
    schedule: Schedule = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Give a waiting timer another instant or schedule; DURATION and --at move only a recurring one's next time."""
    from minoots.cli.timer_request import WhenOptions, read_when

    moved, _ = read_when([duration], WhenOptions(at, cron, every, timezone, schedule))
    _ask(timer_id, "reschedule", moved, requested_by, tenant, as_json)


def fire(timer_id: TimerId, requested_by: Person = None, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Fire a waiting timer now; a recurring one once more, and its next time stays where it is."""
    _ask(timer_id, "fire", {}, requested_by, tenant, as_json, repeatable=False)


def update(
    timer_id: TimerId,
    duration: Duration = None,
    at: At = None,
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = None,
    schedule: Schedule = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What people call it.")] = None,
    webhook: Webhooks = None,
    action_bundle: Bundle = None,
    agent_binding: Binding = None,
    metadata: Metadata = None,
    label: Labels = None,
    clear: Annotated[list[Field] | None, typer.Option(help="Take this away. Repeatable.")] = None,
    if_version: Version = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Change a waiting timer in place: what is given replaces all of that field, --label all labels."""
    from minoots.cli.client import Api, timer_path
    from minoots.cli.exits import misused
    from minoots.cli.timer_request import WhenOptions, camel, read_when

    body = read_fields(webhook, action_bundle, agent_binding, metadata, label)
    if name is not None:
        body["name"] = name
    options = WhenOptions(at, cron, every, timezone, schedule)
    if duration is not None or options.are_given():
        body |= read_when([duration], options)[0]
    for field in clear or ():
        if camel(field.value) in body:
            raise misused(f"give {field.value} a value or clear it, not both")
        body[camel(field.value)] = None
    if not body:
        raise misused("say what to change, for instance --name NAME; see minoots timer update --help")
    api = Api.from_env(tenant=tenant)
    show_answer(api.patch(timer_path(timer_id), body, if_version=if_version), as_json)


def put(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, unique among those put.", show_default=False)],
    duration: Duration = None,
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
    if_version: Version = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Create or replace by name, as often as you like: minoots timer put nightly --cron "0 3 * * *" --webhook URL"""
    from minoots.cli.client import Api, named_path
    from minoots.cli.timer_request import WhenOptions, person, read_when

    when, _ = read_when([duration], WhenOptions(at, cron, every, timezone, schedule))
    fields = read_fields(webhook, action_bundle, agent_binding, metadata, label)
    body = {"requestedBy": requested_by or person(), **when, **fields}
    show_answer(Api.from_env(tenant=tenant).put(named_path(name), body, if_version=if_version), as_json)


def preview(
    cron: Cron = None,
    every: Every = None,
    timezone: Zone = None,
    schedule: Schedule = None,
    after: Annotated[
        str | None, typer.Option(metavar="INSTANT", help="Those after this instant. [default: now]")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", min=1, max=100, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show when a schedule would fire: minoots timer preview --cron "0 9 * * 1-5" --timezone Europe/Berlin"""
    import json

    from minoots.cli.client import Api
    from minoots.cli.show import print_json, show_preview
    from minoots.cli.timer_request import WhenOptions, read_instant_option, read_when

    asked, _ = read_when([], WhenOptions(None, cron, every, timezone, schedule))
    body: dict[str, Any] = {**asked, "count": count}
    if after is not None:
        body["after"] = read_instant_option("--after", after)
    answer = Api.from_env().preview(body)
    if as_json:
        print_json(answer)
    else:
        show_preview(json.loads(answer)["items"])


def _ask(
    timer_id: str,
    verb: str,
    body: dict[str, Any],
    requested_by: str | None,
    tenant: str | None,
    as_json: bool,
    *,
    repeatable: bool = True,
) -> None:
    """POST the verb, and show the timer that it leaves."""
    from minoots.cli.client import Api, timer_path
    from minoots.cli.timer_request import person

    body = {"requestedBy": requested_by or person(), **body}
    show_answer(Api.from_env(tenant=tenant).post(timer_path(timer_id, verb), body, repeatable=repeatable), as_json)


def add_changes(app: typer.Typer) -> None:
    """The commands, in the order of a timer's life."""
    for command in (pause, resume, reschedule, fire, update, put, preview):
        app.command()(command)
