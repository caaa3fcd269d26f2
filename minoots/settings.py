"""What a process is told by its environment, read once; never where code is imported."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from minoots.domain.retention import Retention, parse_retention
from minoots.domain.target import Targets, read_networks
from minoots.errors import ConfigError

Environment = Literal["development", "production"]

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_POSTGRES = "postgresql://user:password@host:5432/database"
_TRUE = {"1", "true", "on", "yes"}
_FALSE = {"0", "false", "off", "no"}
# Kubernetes sets these in every pod for a service that is named minoots, or minoots-api and the like.
_KUBERNETES = re.compile(
    r"MINOOTS_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?=.*|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|=\w+://.*))",
    re.DOTALL,
)
_HOST = re.compile(r"[^\[\]:/\s]*|\[[0-9A-Fa-f:.]+(%\w+)?\]")
_FORMER = {"TIMER_STORE_PATH", "KERNEL_PERSIST_PATH"}

KNOWN = frozenset(
    {
        "MINOOTS_DATABASE_URL",
        "MINOOTS_SCHEMA",
        "MINOOTS_API_ADDRESS",
        "MINOOTS_API_URL",
        "MINOOTS_API_KEY",
        "MINOOTS_TENANT",
        "MINOOTS_PUBLIC_URL",
        "MINOOTS_SECRETS_KEY",
        "MINOOTS_WEBHOOK_ALLOW_CIDRS",
        "MINOOTS_BOOT_DEMO",
        "MINOOTS_ENV",
        "MINOOTS_POOL_SIZE",
        "MINOOTS_PREPARED_STATEMENTS",
        "MINOOTS_KERNEL_BATCH",
        "MINOOTS_CAPACITY",
        "MINOOTS_LANE_CAPACITY",
        "MINOOTS_LEASE_MARGIN_MS",
        "MINOOTS_RETENTION",
        "MINOOTS_STREAM_MAX_BYTES",
        "MINOOTS_COMMANDS_PATH",
        "MINOOTS_COMMANDS_AT_ONCE",
        "MINOOTS_WORKFLOW_ENDPOINT",
        "MINOOTS_WORKFLOW_MAX_BYTES",
        "MINOOTS_AGENTS_MAX_BYTES",
        "MINOOTS_LOG_FORMAT",
        "MINOOTS_LOG_LEVEL",
        "MINOOTS_POSTGRES_PORT",
        "MINOOTS_NATS_PORT",
        "MINOOTS_TEST_DATABASE_URL",
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, name: str, text: str) -> "Address":
        """`127.0.0.1:4000`, `[::1]:4000` or `:4000` (all addresses)."""
        host, colon, port = text.rpartition(":")
        if not colon or not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ConfigError(f"{name}={text!r} is no address; write it as 127.0.0.1:4000")
        return cls(host.strip("[]") or "0.0.0.0", int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the timers live. `url` is None when none was given (only `minoots up` makes do without)."""

    url: str | None
    schema: str
    pool_size: int
    prepared_statements: bool


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where events go. `url` is None when none was given: then there must be no events, or no relay."""

    url: str | None
    subject: str
    stream: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Where the doors listen, and who may come in."""

    rest: Address
    grpc: Address
    public_url: str
    keys_path: Path | None
    keys_json: str | None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the client commands use."""

    url: str
    key: str | None
    tenant: str | None


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """How much the loops take at once.

    `kernel_batch`: timers in one transaction; of a backlog up to four times as many, within 2,000. `capacity`:
    deliveries that one orchestrator has under way at a time of one tenant alone, and as many again of others.
    `lane_capacity`: of them, to one destination without limits of its own. `lease_margin_ms`: what a lease lasts beyond
    the action's own time-out.
    """

    kernel_batch: int
    capacity: int
    lane_capacity: int
    lease_margin_ms: int


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """Which commands may be run: none without `path`; `at_once` of them by one orchestrator."""

    path: Path | None
    at_once: int


@dataclass(frozen=True, slots=True)
class WorkflowSettings:
    """Where workflow events go: to `endpoint` if there is one, else into `stream`, on `{subject}.{tenant}.{name}`."""

    stream: str
    subject: str
    max_bytes: int
    endpoint: str | None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`format` is `console`, `json`, or `auto`: console on a terminal, json elsewhere."""

    format: str
    level: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it, frozen."""

    env: Environment
    store: StoreSettings
    broker: BrokerSettings
    doors: DoorSettings
    client: ClientSettings
    work: WorkSettings
    commands: CommandSettings
    workflow: WorkflowSettings
    # Prompts for agents on the bus, on `{subject}.{tenant}.{name}`.
    agents: WorkflowSettings
    retention: Retention
    log: LogSettings
    boot_demo: bool
    # What wraps stored secrets; it is no text to show.
    secrets_key: str | None = field(default=None, repr=False)
    # Where webhooks may go: in development to this machine too.
    targets: Targets = field(default_factory=Targets)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read and check everything; raises ConfigError with what to change."""
        _refuse_unknown(environ)
        env = _choice(environ, "MINOOTS_ENV", "development", ("development", "production"))
        schema = environ.get("MINOOTS_SCHEMA", "").strip() or "minoots"
        if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
            raise ConfigError(
                f"MINOOTS_SCHEMA={schema!r} is no schema name; use small letters, digits and _ (at most 48)"
            )
        rest = Address.parse("MINOOTS_API_ADDRESS", environ.get("MINOOTS_API_ADDRESS") or "127.0.0.1:4000")
        path = environ.get("API_KEYS_PATH")
        reach = Address("127.0.0.1", rest.port) if rest.host in {"0.0.0.0", "::"} else rest
        return cls(
            env="production" if env == "production" else "development",
            store=StoreSettings(
                url=_url(environ, ("MINOOTS_DATABASE_URL", "DATABASE_URL"), r"postgres(ql)?://.+", _POSTGRES),
                schema=schema,
                pool_size=_integer(environ, "MINOOTS_POOL_SIZE", 8, 2, 500),
                prepared_statements=_boolean(environ, "MINOOTS_PREPARED_STATEMENTS", True),
            ),
            broker=BrokerSettings(
                url=_url(environ, ("NATS_URL",), r"(nats|tls|ws|wss)://.+", "nats://host:4222"),
                subject=_subject(environ, schema),
                stream="MINOOTS_EVENTS" if schema == "minoots" else f"MINOOTS_EVENTS_{schema.upper()}",
                max_bytes=_integer(environ, "MINOOTS_STREAM_MAX_BYTES", 1 << 30, 1 << 20, 1 << 50),
            ),
            doors=DoorSettings(
                rest=rest,
                grpc=Address.parse("KERNEL_GRPC_ADDRESS", environ.get("KERNEL_GRPC_ADDRESS") or "127.0.0.1:50051"),
                public_url=(environ.get("MINOOTS_PUBLIC_URL") or f"http://{reach}").rstrip("/"),
                keys_path=Path(path) if path else None,
                keys_json=environ.get("API_KEYS_JSON") or None,
            ),
            client=_client(environ, env, reach),
            work=WorkSettings(
                kernel_batch=_integer(environ, "MINOOTS_KERNEL_BATCH", 500, 1, 5_000),
                capacity=_integer(environ, "MINOOTS_CAPACITY", 512, 1, 10_000),
                lane_capacity=_integer(environ, "MINOOTS_LANE_CAPACITY", 64, 1, 10_000),
                lease_margin_ms=_integer(environ, "MINOOTS_LEASE_MARGIN_MS", 5_000, 500, 600_000),
            ),
            commands=CommandSettings(
                path=Path(commands) if (commands := environ.get("MINOOTS_COMMANDS_PATH")) else None,
                at_once=_integer(environ, "MINOOTS_COMMANDS_AT_ONCE", 16, 1, 1_000),
            ),
            workflow=WorkflowSettings(
                stream="MINOOTS_WORKFLOW" if schema == "minoots" else f"MINOOTS_WORKFLOW_{schema.upper()}",
                subject=f"{schema}.workflow",
                max_bytes=_integer(environ, "MINOOTS_WORKFLOW_MAX_BYTES", 1 << 30, 1 << 20, 1 << 50),
                endpoint=_url(environ, ("MINOOTS_WORKFLOW_ENDPOINT",), r"https?://[^\s@]+", "https://host/path"),
            ),
            agents=WorkflowSettings(
                stream="MINOOTS_AGENTS" if schema == "minoots" else f"MINOOTS_AGENTS_{schema.upper()}",
                subject=f"{schema}.agents",
                max_bytes=_integer(environ, "MINOOTS_AGENTS_MAX_BYTES", 1 << 30, 1 << 20, 1 << 50),
                endpoint=None,
            ),
            retention=_retention(environ),
            log=LogSettings(
                format=_choice(environ, "MINOOTS_LOG_FORMAT", "auto", ("auto", "console", "json")),
                level=_choice(environ, "MINOOTS_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            ),
            boot_demo=_boolean(environ, "MINOOTS_BOOT_DEMO", False),
            secrets_key=environ.get("MINOOTS_SECRETS_KEY", "").strip() or None,
            targets=_targets(environ, env),
        )


def _client(environ: Mapping[str, str], env: str, reach: Address) -> ClientSettings:
    """In development the demo key and tenant are what a client uses when nothing is said."""
    demo = env == "development"
    return ClientSettings(
        url=(environ.get("MINOOTS_API_URL") or f"http://{reach}").rstrip("/"),
        key=environ.get("MINOOTS_API_KEY") or ("mnt_example" if demo else None),
        tenant=environ.get("MINOOTS_TENANT") or ("demo" if demo else None),
    )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt setting must not be a silent default."""
    for name in sorted(environ):
        if name in _FORMER:
            raise ConfigError(
                f"{name} belongs to the JSON prototype; timers live in Postgres now: "
                f"unset it and run `minoots import {environ[name] or 'FILE'}` to bring the old ones over"
            )
        if not name.startswith("MINOOTS_") or name in KNOWN or _KUBERNETES.fullmatch(f"{name}={environ[name]}"):
            continue
        # Without the prefix, which every name shares.
        near = difflib.get_close_matches(name[8:], [known[8:] for known in KNOWN], n=1, cutoff=0.6)
        hint = f"did you mean MINOOTS_{near[0]}?" if near else "see the README for the settings there are"
        raise ConfigError(f"there is no setting {name}; {hint}")


def _url(environ: Mapping[str, str], names: tuple[str, ...], form: str, example: str) -> str | None:
    """The first that is set. What it holds is never repeated: there may be a password in it."""
    for name in names:
        if text := environ.get(name, "").strip():
            if not re.fullmatch(form, text):
                raise ConfigError(f"{name} is no such address; write it as {example}")
            return text
    return None


def _subject(environ: Mapping[str, str], schema: str) -> str:
    subject = environ.get("NATS_SUBJECT") or f"{schema}.timer.events"
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", subject):
        raise ConfigError(f"NATS_SUBJECT={subject!r} is no subject prefix; use words joined by dots, no * or >")
    return subject


def _retention(environ: Mapping[str, str]) -> Retention:
    """What holds where the table `retention` has no rule."""
    text = environ.get("MINOOTS_RETENTION", "").strip()
    try:
        return replace(Retention(), **parse_retention(text)) if text else Retention()
    except ValueError as refused:
        raise ConfigError(f"MINOOTS_RETENTION={text!r}: {refused}") from None


def _targets(environ: Mapping[str, str], env: str) -> Targets:
    try:
        opened = read_networks(environ.get("MINOOTS_WEBHOOK_ALLOW_CIDRS", ""))
    except ValueError as refused:
        raise ConfigError(f"MINOOTS_WEBHOOK_ALLOW_CIDRS: {refused}") from None
    return Targets.of(opened, loopback=env == "development")


def _integer(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text!r} must be a whole number from {low} to {high}")
    return int(text)


def _boolean(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if not text:
        return default
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{name}={environ[name]!r} must be 1 or 0")


def _choice(environ: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = environ.get(name, "").strip().lower() or default
    if text not in choices:
        raise ConfigError(f"{name}={environ[name]!r} must be one of {', '.join(choices)}")
    return text
