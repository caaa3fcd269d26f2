"""`minoots orchestrate --stdin`: events in as JSON lines, results out as JSON lines."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

import msgspec
import typer

from minoots.cli.exits import misused
from minoots.orchestrator.actions.webhook import WebhookRunner
from minoots.orchestrator.extensions import load_extensions
from minoots.orchestrator.lines import LINES_AT_ONCE, LineResult, run_lines
from minoots.service.abilities import abilities_of, load_commands
from minoots.settings import Settings
from minoots.wiring import action_runners, open_operators


def orchestrate(stdin: bool) -> None:
    """Exit code 0 when every line was an event, 4 when some were not; results say how the actions ended."""
    if not stdin:
        raise misused(
            "say --stdin: events are read from standard input (for NATS and Postgres: minoots serve orchestrator)"
        )
    wrong = asyncio.run(_run(Settings.from_env(os.environ)))
    if wrong:
        raise typer.Exit(4)


async def _run(settings: Settings) -> int:
    commands = load_commands(settings.commands.path)
    async with contextlib.AsyncExitStack() as stack:
        webhooks = await stack.enter_async_context(WebhookRunner(LINES_AT_ONCE, settings.targets))
        operators = await open_operators(settings, LINES_AT_ONCE, None, stack)
        extensions = load_extensions()
        abilities = abilities_of(settings, commands, extensions.brought())
        runners = action_runners(settings, webhooks, commands, extensions, abilities, None, operators)
        return await run_lines(_lines(), runners, _say, _complain)


async def _lines() -> AsyncIterator[str]:
    """Standard input line by line, as it comes, of any length."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield line.decode("utf-8", "replace")


def _say(result: LineResult) -> None:
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


def _complain(number: int, what: str) -> None:
    sys.stderr.write(f"minoots: line {number}: {what}\n")
