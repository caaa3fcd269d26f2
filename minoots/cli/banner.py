"""What `minoots up` prints when everything is there."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything is, as a person would type it. `key` is None when the keys are the user's own."""

    rest: str
    grpc: str
    postgres: str
    nats: str
    key: str | None
    data_dir: Path | None


def show_banner(endpoints: Endpoints) -> None:
    """A few lines; none is wrapped, so that each can be copied."""
    console = Console(soft_wrap=True, highlight=False)
    console.print()
    console.print(Text("MINOOTS is up.", style="bold green"))
    console.print()
    for label, value in (
        ("REST", endpoints.rest),
        ("API docs", f"{endpoints.rest}/docs"),
        ("gRPC", endpoints.grpc),
        ("Postgres", endpoints.postgres),
        ("NATS", endpoints.nats),
        ("API key", endpoints.key or "one of those in API_KEYS_PATH or API_KEYS_JSON"),
    ):
        console.print(Text.assemble("  ", (f"{label:<10}", "bold"), value))
    console.print()
    console.print("Create a timer that fires in five seconds:", markup=False)
    console.print()
    console.print(Text(curl(endpoints), style="cyan"))
    console.print()
    data = f" The data stays in {endpoints.data_dir}." if endpoints.data_dir else ""
    console.print(f"Ctrl-C stops everything.{data}", markup=False)
    console.print()


def curl(endpoints: Endpoints) -> str:
    """A line that works as it is printed, with the shell's own line ends."""
    return f"""\
  curl -X POST {endpoints.rest}/timers \\
    -H "Content-Type: application/json" \\
    -H "X-API-Key: {endpoints.key or "YOUR_KEY"}" \\
    -d '{{
      "tenantId": "demo",
      "requestedBy": "cli",
      "name": "coffee-break",
      "duration": "5s",
      "metadata": {{"note": "brew beans"}}
    }}'"""
