"""The program's commands. What a command needs is imported when it runs, so that the client commands start fast."""

import contextlib
import io
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import minoots
from minoots.cli import bench, dead_letters, import_store, retention, secret, timer
from minoots.cli.exits import USAGE, CommandStopped, describe_end, printable
from minoots.errors import MinootsError

SERVER, CLIENT = "Run MINOOTS", "Use it"

# What typer raises for a wrong command line: click's UsageError, or that of its own copy of click.
_MISUSED: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="minoots",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The client commands talk to MINOOTS_API_URL (http://127.0.0.1:4000), with MINOOTS_API_KEY, as the tenant "
    "MINOOTS_TENANT; against a development server none has to be set. Exit codes: 0 good, 1 a watched timer failed or "
    "was cancelled, 2 usage, 3 not found, 4 refused, 5 unreachable.",
)
app.add_typer(timer.app, name="timer", rich_help_panel=CLIENT)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=CLIENT)
app.add_typer(secret.app, name="secret", rich_help_panel=CLIENT)
app.add_typer(bench.app, name="bench", rich_help_panel=SERVER)
app.add_typer(retention.app, name="retention", rich_help_panel=SERVER)
app.command("import", rich_help_panel=CLIENT)(import_store.import_timers)


class Role(StrEnum):
    """What a process may be; several may share one."""

    api = "api"
    grpc = "grpc"
    kernel = "kernel"
    relay = "relay"
    orchestrator = "orchestrator"


class Switch(StrEnum):
    on = "on"
    off = "off"


def run(arguments: Sequence[str]) -> int:
    """Run one command: the exit code. An error is a sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows a name with question marks, rather than nothing at all.
            stream.reconfigure(errors="replace")
    try:
        code = app(list(arguments), prog_name="minoots", standalone_mode=False)
    except (MinootsError, CommandStopped) as error:
        sentence, code = describe_end(error)
        _complain(sentence)
    except _MISUSED as error:
        code = USAGE
        # No command at all: the help that was printed says it.
        if type(error).__name__ != "NoArgsIsHelpError":
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "minoots"
            message = error.format_message().replace("Value error, ", "").rstrip(".")
            _complain(f"{message}; see {path} --help")
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else 0


def _complain(sentence: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        for line in sentence.splitlines():
            print(f"minoots: {printable(line)}", file=sys.stderr)  # noqa: T201 - this is how a program speaks


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    typer.echo(f"minoots {minoots.__version__}")
    raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """MINOOTS, durable timers: fire this at T, survive any crash, then call me.

    Start with minoots up: it runs everything on this machine. Then, in another window, minoots timer create 30s
    coffee-break and minoots timer list.
    """


@app.command(rich_help_panel=SERVER)
def up(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where the embedded servers keep their data.")] = Path(
        ".minoots"
    ),
) -> None:
    """Run everything on this machine: Postgres and NATS where no URL is given, migrations, all roles."""
    from minoots.cli.up import up as run_up

    run_up(data_dir)


@app.command(rich_help_panel=SERVER)
def serve(
    roles: Annotated[list[Role] | None, typer.Argument(help="Which roles; all when none is named.")] = None,
) -> None:
    """Run some or all roles in one process, over MINOOTS_DATABASE_URL and NATS_URL."""
    from minoots.cli.serve import serve as run_serve

    run_serve([role.value for role in dict.fromkeys(roles or Role)])


@app.command(rich_help_panel=SERVER)
def migrate() -> None:
    """Bring the schema in MINOOTS_DATABASE_URL to this version; does nothing when it is."""
    from minoots.cli.serve import migrate as run_migrate

    run_migrate()


@app.command(rich_help_panel=SERVER)
def events(state: Annotated[Switch, typer.Argument(help="on: timers and deliveries are announced on NATS.")]) -> None:
    """Switch the installation's events on or off."""
    from minoots.cli.serve import events as switch_events

    switch_events(state.value)


@app.command(rich_help_panel=SERVER)
def orchestrate(
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read events as JSON lines; print a JSON line a result.")
    ] = False,
) -> None:
    """Run the actions of events that come as JSON lines, without database or NATS."""
    from minoots.cli.orchestrate import orchestrate as run_orchestrate

    run_orchestrate(stdin)
