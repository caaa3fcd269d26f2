"""What the environment may say, and what is answered to what it may not."""

import difflib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from minoots.domain.retention import Retention
from minoots.domain.target import read_networks
from minoots.errors import ConfigError
from minoots.settings import KNOWN, Address, Settings

# Each setting that changes what a process does: a value, and where it is found.
SETTINGS: list[tuple[str, str, Callable[[Settings], Any], Any]] = [
    ("MINOOTS_DATABASE_URL", "postgresql://h/d", lambda s: s.store.url, "postgresql://h/d"),
    ("DATABASE_URL", "postgresql://h/e", lambda s: s.store.url, "postgresql://h/e"),
    ("MINOOTS_SCHEMA", "other", lambda s: s.store.schema, "other"),
    ("MINOOTS_POOL_SIZE", "3", lambda s: s.store.pool_size, 3),
    ("MINOOTS_PREPARED_STATEMENTS", "off", lambda s: s.store.prepared_statements, False),
    ("NATS_URL", "nats://h:4222", lambda s: s.broker.url, "nats://h:4222"),
    ("NATS_SUBJECT", "acme.timers", lambda s: s.broker.subject, "acme.timers"),
    ("MINOOTS_STREAM_MAX_BYTES", "1048576", lambda s: s.broker.max_bytes, 1_048_576),
    ("MINOOTS_API_ADDRESS", "[::1]:8080", lambda s: s.doors.rest, Address("::1", 8080)),
    ("KERNEL_GRPC_ADDRESS", ":6000", lambda s: s.doors.grpc, Address("0.0.0.0", 6000)),
    ("MINOOTS_PUBLIC_URL", "https://t.example/", lambda s: s.doors.public_url, "https://t.example"),
    ("API_KEYS_PATH", "/keys.json", lambda s: s.doors.keys_path, Path("/keys.json")),
    ("API_KEYS_JSON", "[]", lambda s: s.doors.keys_json, "[]"),
    ("MINOOTS_API_URL", "http://h:1/", lambda s: s.client.url, "http://h:1"),
    ("MINOOTS_API_KEY", "mnt_k", lambda s: s.client.key, "mnt_k"),
    ("MINOOTS_TENANT", "acme", lambda s: s.client.tenant, "acme"),
    ("MINOOTS_LANE_CAPACITY", "7", lambda s: s.work.lane_capacity, 7),
    ("MINOOTS_SECRETS_KEY", "a2V5", lambda s: s.secrets_key, "a2V5"),
    (
        "MINOOTS_WEBHOOK_ALLOW_CIDRS",
        "10.0.0.0/8, fd00::/8",
        lambda s: s.targets.opened[:2],
        read_networks("10.0.0.0/8,fd00::/8"),
    ),
    ("MINOOTS_COMMANDS_PATH", "c.json", lambda s: s.commands.path, Path("c.json")),
    ("MINOOTS_COMMANDS_AT_ONCE", "3", lambda s: s.commands.at_once, 3),
    ("MINOOTS_WORKFLOW_ENDPOINT", "http://h/x", lambda s: s.workflow.endpoint, "http://h/x"),
    ("MINOOTS_WORKFLOW_MAX_BYTES", "2000000", lambda s: s.workflow.max_bytes, 2_000_000),
    ("MINOOTS_AGENTS_MAX_BYTES", "2000000", lambda s: s.agents.max_bytes, 2_000_000),
    ("MINOOTS_BOOT_DEMO", "Yes", lambda s: s.boot_demo, True),
    ("MINOOTS_ENV", "PRODUCTION", lambda s: s.env, "production"),
    ("MINOOTS_KERNEL_BATCH", "7", lambda s: s.work.kernel_batch, 7),
    ("MINOOTS_CAPACITY", "9", lambda s: s.work.capacity, 9),
    ("MINOOTS_LEASE_MARGIN_MS", "1000", lambda s: s.work.lease_margin_ms, 1000),
    (
        "MINOOTS_RETENTION",
        "settled=10s,failed=off",
        lambda s: s.retention,
        Retention(settled=timedelta(seconds=10), failed=None),
    ),
    ("MINOOTS_LOG_FORMAT", "json", lambda s: s.log.format, "json"),
    ("MINOOTS_LOG_LEVEL", "DEBUG", lambda s: s.log.level, "debug"),
]
# Read where they are used: `minoots up` and the tests.
READ_ELSEWHERE = {"MINOOTS_POSTGRES_PORT", "MINOOTS_NATS_PORT", "MINOOTS_TEST_DATABASE_URL", "MINOOTS_TEST_NATS_URL"}


@pytest.mark.parametrize(("name", "text", "read", "value"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_every_setting_is_read(name: str, text: str, read: Callable[[Settings], Any], value: Any) -> None:
    assert read(Settings.from_env({name: text})) == value
    assert read(Settings.from_env({})) != value


def test_no_setting_is_known_but_never_read() -> None:
    assert {name for name, *_ in SETTINGS if name.startswith("MINOOTS_")} == KNOWN - READ_ELSEWHERE


def test_the_defaults_are_those_of_the_design() -> None:
    settings = Settings.from_env({"PATH": "/bin", "HOME": "/root"})
    assert settings.env == "development"
    assert settings.store.url is None
    assert (settings.store.schema, settings.store.prepared_statements) == ("minoots", True)
    assert (settings.broker.url, settings.broker.subject) == (None, "minoots.timer.events")
    assert (settings.broker.stream, settings.broker.max_bytes) == ("MINOOTS_EVENTS", 1 << 30)
    assert (str(settings.doors.rest), str(settings.doors.grpc)) == ("127.0.0.1:4000", "127.0.0.1:50051")
    assert settings.doors.public_url == "http://127.0.0.1:4000"
    assert (settings.client.url, settings.client.key) == ("http://127.0.0.1:4000", "mnt_example")
    assert settings.client.tenant == "demo"
    assert not settings.boot_demo


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.com", "10.0.0.0/8;10.0.0.0/8", "10.0.0.0/99"])
def test_a_network_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"MINOOTS_WEBHOOK_ALLOW_CIDRS: .* is no network; write it as 10.1.0.0/16"):
        Settings.from_env({"MINOOTS_WEBHOOK_ALLOW_CIDRS": text})


def test_only_development_opens_loopback_by_itself() -> None:
    loopback = ip_address("127.0.0.1")
    assert Settings.from_env({}).targets.allows(loopback)
    assert not Settings.from_env({"MINOOTS_ENV": "production"}).targets.allows(loopback)


def test_an_empty_setting_is_none_at_all() -> None:
    assert Settings.from_env({name: "" for name, *_ in SETTINGS}) == Settings.from_env({})


def test_production_has_no_demo_client() -> None:
    client = Settings.from_env({"MINOOTS_ENV": "production"}).client
    assert (client.key, client.tenant) == (None, None)


def test_another_schema_names_the_stream_and_the_subject() -> None:
    broker = Settings.from_env({"MINOOTS_SCHEMA": "x"}).broker
    assert (broker.stream, broker.subject) == ("MINOOTS_EVENTS_X", "x.timer.events")
    chosen = Settings.from_env({"MINOOTS_SCHEMA": "x", "NATS_SUBJECT": "mine"}).broker
    assert (chosen.stream, chosen.subject) == ("MINOOTS_EVENTS_X", "mine")


def test_its_own_name_for_the_database_comes_first() -> None:
    environ = {"DATABASE_URL": "postgresql://h/general", "MINOOTS_DATABASE_URL": "postgresql://h/own"}
    assert Settings.from_env(environ).store.url == "postgresql://h/own"


@pytest.mark.parametrize("listen", ["0.0.0.0:4000", "[::]:4000", ":4000"])
def test_a_server_on_all_addresses_is_reached_on_this_machine(listen: str) -> None:
    settings = Settings.from_env({"MINOOTS_API_ADDRESS": listen})
    assert settings.doors.public_url == settings.client.url == "http://127.0.0.1:4000"


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_misspelt_setting_is_answered_with_the_right_one(name: str) -> None:
    for typo in (name[:-1], name + "S", name.replace("_", "", 2).replace("MINOOTS", "MINOOTS_", 1)):
        if typo in KNOWN or not typo.startswith("MINOOTS_"):
            continue
        with pytest.raises(ConfigError) as refused:
            Settings.from_env({typo: "1"})
        assert f"there is no setting {typo}; did you mean " in refused.value.detail
        meant = refused.value.detail.rsplit(" ", 1)[1].rstrip("?")
        # Between two that are equally near either is a help.
        nearness = difflib.SequenceMatcher(None, typo, meant).ratio()
        assert meant == name or nearness >= difflib.SequenceMatcher(None, typo, name).ratio()


def test_a_setting_like_no_other_points_to_the_list() -> None:
    with pytest.raises(ConfigError, match="there is no setting MINOOTS_ZZZZQQQQ; see the README"):
        Settings.from_env({"MINOOTS_ZZZZQQQQ": "1"})


def test_names_that_are_not_ours_are_let_alone() -> None:
    Settings.from_env({"MINOOT_SCHEMA": "x", "PGHOST": "h", "NATS_USER": "u", "XMINOOTS_ENV": "x", "minoots_env": "x"})


def test_what_kubernetes_injects_for_a_service_named_minoots_passes() -> None:
    injected = {
        "MINOOTS_SERVICE_HOST": "10.0.0.1",
        "MINOOTS_SERVICE_PORT": "4000",
        "MINOOTS_SERVICE_PORT_HTTP": "4000",
        "MINOOTS_PORT": "tcp://10.0.0.1:4000",
        "MINOOTS_PORT_4000_TCP": "tcp://10.0.0.1:4000",
        "MINOOTS_PORT_4000_TCP_PROTO": "tcp",
        "MINOOTS_PORT_4000_TCP_PORT": "4000",
        "MINOOTS_PORT_4000_TCP_ADDR": "10.0.0.1",
        "MINOOTS_API_SERVICE_HOST": "10.0.0.2",
        "MINOOTS_API_PORT_4000_TCP_ADDR": "10.0.0.2",
    }
    assert Settings.from_env(injected) == Settings.from_env({})


@pytest.mark.parametrize("name", ["TIMER_STORE_PATH", "KERNEL_PERSIST_PATH"])
def test_the_prototypes_settings_point_to_import(name: str) -> None:
    with pytest.raises(ConfigError, match=r"run `minoots import /old/timers\.json`"):
        Settings.from_env({name: "/old/timers.json"})
    with pytest.raises(ConfigError, match="run `minoots import FILE`"):
        Settings.from_env({name: ""})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4000", "127.0.0.1", 4000),
        ("localhost:1", "localhost", 1),
        ("[::1]:65535", "::1", 65_535),
        (":4000", "0.0.0.0", 4000),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    assert Address.parse("X", text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["4000", "h:", "h:0", "h:65536", "h:-1", "h:http", "h:٤٠٠٠", "::1:4000", "[::1]", "http://h:1"]
)
def test_what_is_no_address_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"MINOOTS_API_ADDRESS='.*' is no address; write it as 127\.0\.0\.1:4000"):
        Settings.from_env({"MINOOTS_API_ADDRESS": text})


def test_an_address_is_shown_as_it_is_written() -> None:
    for text in ("127.0.0.1:4000", "[::1]:4000"):
        assert str(Address.parse("X", text)) == text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MINOOTS_SCHEMA", "Timers", "small letters"),
        ("MINOOTS_SCHEMA", "1x", "small letters"),
        ("MINOOTS_SCHEMA", "pg_x", "no schema name"),
        ("MINOOTS_SCHEMA", "x" * 49, "at most 48"),
        ("MINOOTS_SCHEMA", 'x";drop', "no schema name"),
        ("NATS_SUBJECT", "a..b", "no subject"),
        ("NATS_SUBJECT", "a.>", "no subject"),
        ("NATS_SUBJECT", "a b", "no subject"),
        ("MINOOTS_ENV", "staging", "development, production"),
        ("MINOOTS_LOG_LEVEL", "loud", "debug, info"),
        ("MINOOTS_LOG_FORMAT", "xml", "auto, console, json"),
        ("MINOOTS_BOOT_DEMO", "maybe", "1 or 0"),
        ("MINOOTS_PREPARED_STATEMENTS", "2", "1 or 0"),
        ("MINOOTS_POOL_SIZE", "1", "from 2 to 500"),
        ("MINOOTS_POOL_SIZE", "many", "from 2 to 500"),
        ("MINOOTS_KERNEL_BATCH", "5001", "from 1 to 5000"),
        ("MINOOTS_KERNEL_BATCH", "-1", "from 1 to 5000"),
        ("MINOOTS_CAPACITY", "0", "from 1 to 10000"),
        ("MINOOTS_CAPACITY", "²", "from 1 to 10000"),
        ("MINOOTS_LEASE_MARGIN_MS", "499", "from 500 to 600000"),
        ("MINOOTS_STREAM_MAX_BYTES", "1", "from 1048576"),
        ("MINOOTS_RETENTION", "a month", "write it as 30d"),
        ("MINOOTS_RETENTION", "done=30d", "settled, failed, cancelled, fired"),
    ],
)
def test_a_value_that_does_not_work_is_refused_with_what_would(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Settings.from_env({name: text})
    assert name in refused.value.detail


def test_settings_are_frozen() -> None:
    settings = Settings.from_env({})
    for field in fields(settings):
        section = getattr(settings, field.name)
        if is_dataclass(section):
            with pytest.raises(FrozenInstanceError):
                setattr(section, fields(section)[0].name, None)
