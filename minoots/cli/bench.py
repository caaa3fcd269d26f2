"""`minoots bench …`: measure what MINOOTS does on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Measure: against MINOOTS_DATABASE_URL and NATS_URL where they are set, else on embedded servers in a "
    "temporary folder. Each run makes a schema of its own and removes it.",
)

# Options that every scenario has.
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line.")]
Runs = Annotated[int, typer.Option(min=1, help="Measure so often, and give the medians.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the distribution.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the schemas (and the embedded servers' folder) as they are.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the embedded Postgres. Repeatable."),
]
Ballast = Annotated[int, typer.Option(min=0, help="How many timers wait beside what is measured.")]


class Door(StrEnum):
    """How a timer may come in."""

    rest = "rest"
    grpc = "grpc"
    sql = "sql"
    batch = "batch"


@app.command()
def limit(
    timers: Annotated[int, typer.Option(min=1000, help="How many are due.")] = 100_000,
    ballast: Ballast = 1_000_000,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """What this database can do at most: the barest claim that there can be."""
    _check(plot)
    from minoots.bench import limit as scenario

    _run(scenario.run, scenario.LimitParameters(timers, ballast), as_json, runs, plot, keep, sets)


@app.command()
def create(
    door: Annotated[Door, typer.Option(help="By which door.")],
    seconds: Annotated[int, typer.Option(min=1, help="For so long, in three rounds.")] = 15,
    connections: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 32,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Timers in a call of the door batch.")] = 1_000,
    ballast: Ballast = 1_000_000,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """How many timers come in by a door, beside the barest door of its kind."""
    _check(plot)
    from minoots.bench import create as scenario

    parameters = scenario.CreateParameters(door.value, seconds, connections, batch, ballast)
    _run(scenario.run, parameters, as_json, runs, plot, keep, sets)


@app.command()
def fire(
    timers: Annotated[int, typer.Option(min=1000, help="How many are due.")] = 100_000,
    ballast: Ballast = 1_000_000,
    hold_xmin: Annotated[
        bool, typer.Option("--hold-xmin", help="And again while a long transaction stops vacuum.")
    ] = False,
    kernels: Annotated[int, typer.Option(min=1, help="How many kernel processes.")] = 1,
    with_limit: Annotated[
        bool, typer.Option("--limit/--no-limit", help="Whether the database's limit is measured as well.")
    ] = True,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """A backlog of due timers with a webhook each: how fast it fires."""
    _check(plot)
    from minoots.bench import fire as scenario

    parameters = scenario.FireParameters(timers, ballast, hold_xmin, kernels, with_limit)
    _run(scenario.run, parameters, as_json, runs, plot, keep, sets)


@app.command()
def lateness(
    rate: Annotated[int, typer.Option(min=1, help="Timers a second.")] = 1_000,
    seconds: Annotated[int, typer.Option(min=1, help="For so long.")] = 20,
    herd: Annotated[int, typer.Option(min=0, help="Instead: so many, all due at the same instant.")] = 0,
    ballast: Ballast = 1_000_000,
    hold_xmin: Annotated[bool, typer.Option("--hold-xmin", help="While a long transaction stops vacuum.")] = False,
    kill_kernel: Annotated[
        bool, typer.Option("--kill-kernel", help="Two kernels; one is killed with -9 in the middle.")
    ] = False,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """How late timers fire: due instant to commit."""
    _check(plot)
    from minoots.bench import lateness as scenario

    parameters = scenario.LatenessParameters(rate, seconds, herd, ballast, hold_xmin, kill_kernel)
    _run(scenario.run, parameters, as_json, runs, plot, keep, sets)


@app.command()
def relay(
    events: Annotated[int, typer.Option(min=10, help="How many wait in the outbox.")] = 200_000,
    size: Annotated[int, typer.Option(min=100, help="Bytes of each.")] = 1_024,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """A filled outbox and one relay: how fast it drains, and whether each timer's events keep their order."""
    _check(plot)
    from minoots.bench import relay as scenario

    _run(scenario.run, scenario.RelayParameters(events, size), as_json, runs, plot, keep, sets)


@app.command()
def deliver(
    rate: Annotated[int, typer.Option(min=1, help="Timers a second.")] = 300,
    seconds: Annotated[int, typer.Option(min=1, help="For so long.")] = 20,
    destinations: Annotated[int, typer.Option(min=1, max=1000, help="Receivers, a port each.")] = 10,
    tenants: Annotated[int, typer.Option(min=1, help="Tenants.")] = 10,
    ballast: Ballast = 1_000_000,
    backlog: Annotated[int, typer.Option(min=0, help="So many due at once, instead of a rate.")] = 0,
    hang: Annotated[int, typer.Option(min=0, help="Another tenant's endpoints that never answer.")] = 0,
    dead: Annotated[int, typer.Option(min=0, help="… that refuse connections.")] = 0,
    slow: Annotated[int, typer.Option(min=0, help="… that answer drop by drop.")] = 0,
    held: Annotated[int, typer.Option(min=1, help="Deliveries that they hold together.")] = 50_000,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """How late webhooks arrive: due instant to arrival, with all roles."""
    _check(plot)
    from minoots.bench import deliver as scenario

    parameters = scenario.DeliverParameters(
        rate, seconds, destinations, tenants, ballast, backlog, hang, dead, slow, held
    )
    _run(scenario.run, parameters, as_json, runs, plot, keep, sets)


@app.command()
def churn(
    rate: Annotated[int, typer.Option(min=1, help="Timers a second.")] = 500,
    minutes: Annotated[float, typer.Option(min=0.05, help="For so long.")] = 10.0,
    retention: Annotated[int, typer.Option(min=1, help="Seconds that what has ended is kept.")] = 10,
    destinations: Annotated[int, typer.Option(min=1, max=1000, help="Receivers, a port each.")] = 10,
    ballast: Ballast = 1_000_000,
    as_json: AsJson = False,
    runs: Runs = 1,
    plot: Plot = None,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """Create, fire, deliver, prune at a steady rate: whether tables and indexes keep their size."""
    _check(plot)
    from minoots.bench import churn as scenario

    parameters = scenario.ChurnParameters(rate, minutes, retention, destinations, ballast)
    _run(scenario.run, parameters, as_json, runs, plot, keep, sets)


@app.command()
def idle(
    seconds: Annotated[int, typer.Option(min=1, help="For so long.")] = 30,
    rest: Annotated[float, typer.Option(min=0, help="Seconds before, to come to rest.")] = 15.0,
    ballast: Ballast = 1_000_000,
    as_json: AsJson = False,
    runs: Runs = 1,
    keep: Keep = False,
    sets: Sets = None,
) -> None:
    """What each role costs while nothing is due, Postgres's share in it."""
    _check(None)
    from minoots.bench import idle as scenario

    _run(scenario.run, scenario.IdleParameters(seconds, rest, ballast), as_json, runs, None, keep, sets)


def _check(plot: Path | None) -> None:
    from minoots.bench.failures import require_parts

    require_parts(plots=plot is not None)


def _run(
    scenario: Any, parameters: Any, as_json: bool, runs: int, plot: Path | None, keep: bool, sets: list[str] | None
) -> None:
    import os

    import uvloop
    from rich.console import Console

    from minoots.bench.measure import Session, measure
    from minoots.bench.report import as_line, show
    from minoots.cli.serve import PROCESSES

    session = Session(os.environ, PROCESSES, runs, keep, plot, _settings(sets or []))
    result = uvloop.run(measure(session, scenario, parameters))
    show(result, Console())
    if as_json:
        typer.echo(as_line(result))


def _settings(pairs: list[str]) -> dict[str, str]:
    from minoots.cli.exits import misused

    for pair in pairs:
        if "=" not in pair:
            raise misused(f"--set {pair}: write it as name=value, for example shared_buffers=1GB")
    return dict(pair.split("=", 1) for pair in pairs)
