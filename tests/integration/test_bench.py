"""`minoots bench`: every scenario from end to end in a small size, and that what must be zero is really counted."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from minoots.bench import churn, create, deliver, everything, figures, fire, idle, lateness, relay, verdict
from minoots.bench.commits import CommitWatch
from minoots.bench.everything import Arrival
from minoots.bench.failures import BenchFailed, require_parts
from minoots.bench.measure import Session, measure
from minoots.bench.plot import draw
from minoots.bench.sampling import Usage
from minoots.bench.servers import Installation, Servers
from minoots.cli.serve import PROCESSES
from minoots.embedded.nats import EmbeddedNats
from minoots.errors import ConfigError
from minoots.settings import Settings
from tests.support.timers import Sql, count

KEYS = {
    "scenario", "parameters", "machine", "versions", "counts", "per_second", "p50_ms", "p95_ms", "p99_ms", "max_ms",
    "lost", "duplicates", "early", "processes", "roles",
}  # fmt: skip


@pytest.fixture
def session(database_url: str, nats: EmbeddedNats) -> Session:
    """Measuring on servers that are given."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("MINOOTS_")}
    return Session({**given, "MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}, PROCESSES)


@pytest.fixture
def made(database_url: str, nats: EmbeddedNats, tmp_path: Path) -> Installation:
    """The test's own schema as a scenario sees it."""
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    servers = Servers(database_url, nats.url, "given", tmp_path, None, None)
    return Installation(servers, Settings.from_env(environ), environ)


def check(result: Mapping[str, Any], scenario: str, roles: list[str]) -> None:
    assert set(result) >= KEYS
    assert (result["scenario"], result["roles"]) == (scenario, roles)
    assert (result["lost"], result["duplicates"], result["early"]) == (0, 0, 0)
    assert {"cpus", "memory_gb"} <= set(result["machine"])
    assert {"minoots", "postgres", "nats", "python"} <= set(result["versions"])
    assert {*roles, "postgres", "nats"} <= set(result["processes"])
    assert all(set(usage) == {"cpu_s", "peak_mb"} for usage in result["processes"].values())
    assert all(result["processes"][role]["peak_mb"] > 10 for role in roles)
    assert json.loads(json.dumps(result)) == result


def check_spread(result: Mapping[str, Any]) -> None:
    assert 0 < result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"] <= result["max_ms"]


def test_limit_runs_from_the_command_line_on_embedded_servers_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MINOOTS_", "NATS_"))}
    command = [sys.executable, "-m", "minoots", "bench", "limit", "--timers", "2000", "--ballast", "1000", "--json"]
    folder = Path("/tmp/minoots-bench-test") if os.geteuid() == 0 else tmp_path
    folder.mkdir(mode=0o711, exist_ok=True)
    ended = subprocess.run(
        [*command, "--runs", "2"], env={**environ, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "minoots bench limit" in ended.stdout
    result = json.loads(ended.stdout.splitlines()[-1])
    check(result, "limit", [])
    check_spread(result)
    assert (result["runs"], result["counts"]) == (2, {"timers": 2000, "batches": 4})
    assert result["versions"]["postgres_settings"]["fsync"] == "on"
    assert result["versions"]["servers"] == "embedded"
    assert not list(folder.iterdir())


async def test_fire_counts_every_firing_with_and_without_a_held_snapshot(session: Session, sql: Sql) -> None:
    result = await measure(session, fire.run, fire.FireParameters(timers=3000, ballast=1000, hold_xmin=True))
    check(result, "fire", ["kernel relay"])
    assert result["counts"]["fired"] == 3000
    assert result["ratio"] == pytest.approx(result["per_second"] / result["limit_per_second"], rel=0.05)
    assert result["hold_ratio"] == pytest.approx(result["per_second"] / result["free_per_second"], rel=0.05)
    schemas = await sql.fetchval("select count(*) from pg_namespace where nspname like 'bench%'")
    assert schemas == 0, "the schemas are removed"


async def test_lateness_is_measured_to_the_commit(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lateness, "LEAD_S", 4.0)
    picture = tmp_path / "lateness.png"
    pictured = Session(session.environ, PROCESSES, plot=picture)
    result = await measure(pictured, lateness.run, lateness.LatenessParameters(rate=200, seconds=2, ballast=1000))
    check(result, "lateness", ["kernel relay"])
    check_spread(result)
    assert result["counts"]["fired"] == 400
    assert result["p50_ms"] > result["to_fired_at"]["p50_ms"]
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_a_herd_outlives_one_of_two_kernels(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "LEAD_S", 5.0)
    parameters = lateness.LatenessParameters(herd=6000, ballast=0, kill_kernel=True)
    result = await measure(session, lateness.run, parameters)
    check(result, "lateness", ["kernel relay", "kernel relay 2"])
    assert result["counts"]["fired"] == 6000
    assert 3000 <= result["fired_before_kill"] <= 6000
    assert result["all_fired_s"] * 1000 == pytest.approx(result["max_ms"], rel=0.01)


async def test_relay_reads_the_stream_back(session: Session) -> None:
    result = await measure(session, relay.run, relay.RelayParameters(events=3000, size=1024))
    check(result, "relay", ["relay"])
    assert result["counts"] == {"events": 3000, "published": 3000, "left": 0, "disordered": 0}
    assert result["per_second"] > 0


@pytest.mark.parametrize(("door", "roles"), [("rest", ["api"]), ("grpc", ["grpc"]), ("sql", []), ("batch", ["api"])])
async def test_create_counts_what_came_in_by_each_door(
    session: Session, monkeypatch: pytest.MonkeyPatch, door: str, roles: list[str]
) -> None:
    monkeypatch.setattr(create, "WARM_S", 0.2)
    parameters = create.CreateParameters(door, seconds=1, connections=4, batch=50, ballast=0)
    result = await measure(session, create.run, parameters)
    check(result, "create", roles)
    check_spread(result)
    assert result["per_second"] > 0
    assert (result["ratio"] is None) == (door == "batch")
    assert result["counts"]["timers"] == result["counts"]["calls"] * (50 if door == "batch" else 1)


async def test_deliver_sees_every_webhook_arrive(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "LEAD_S", 5.0)
    parameters = deliver.DeliverParameters(rate=50, seconds=2, destinations=3, tenants=2, ballast=1000)
    result = await measure(session, deliver.run, parameters)
    check(result, "deliver", ["api", "grpc", "kernel relay", "orchestrator"])
    check_spread(result)
    assert result["counts"]["arrived"] == 100
    assert result["receiver_limit_per_second"] > 100


async def test_churn_watches_sizes(session: Session) -> None:
    parameters = churn.ChurnParameters(rate=50, minutes=0.05, retention_s=1, destinations=2, ballast=20_000)
    result = await measure(session, churn.run, parameters)
    check(result, "churn", ["api", "grpc", "kernel relay", "orchestrator"])
    assert result["counts"]["timers"] == pytest.approx(150, abs=20)
    assert result["ratios"]["timers"] == pytest.approx(1, abs=0.2)
    assert len(result["sizes_mb"]["timers"]) == len(result["sizes_at_s"])


async def test_idle_gives_each_role_its_share_of_postgres(session: Session) -> None:
    result = await measure(session, idle.run, idle.IdleParameters(seconds=2, rest_s=1, ballast=1000))
    check(result, "idle", ["api", "grpc", "kernel relay", "orchestrator"])
    assert set(result["percent_a_role"]) == set(result["roles"])
    assert result["worst_percent_a_role"] == max(result["percent_a_role"].values())


SCHEDULE = """insert into minoots.timers (tenant_id, name, fire_at)
              select 'bench-0', 'x', minoots.now() + interval '1 day' from generate_series(1, 4) returning id"""
FIRE = """insert into minoots.firings (tenant_id, timer_id, occurrence, nominal_at, due_at, fired_at, timer_version,
                                       open_deliveries)
          values ('bench-0', $1, $2, now(), now() - interval '1 h', now() + $3::text::interval, 2, 1)"""


async def test_what_was_lost_fired_twice_or_early_is_found_in_the_rows(made: Installation, sql: Sql) -> None:
    timers: list[UUID] = [row[0] for row in await sql.fetch(SCHEDULE)]
    await sql.execute(FIRE, timers[0], 1, "2 days")
    await sql.execute(FIRE, timers[1], 1, "2 days")
    await sql.execute(FIRE, timers[1], 2, "3 days")
    # On the firing all is well; by the timer it is a day early.
    await sql.execute(FIRE, timers[2], 1, "0 s")
    rows = await verdict.read_fired(made)
    found = verdict.judge(rows, 5)
    assert (found.fired, found.lost, found.duplicates) == (3, 2, 1), "one never fired, and one of five was never made"
    assert sum(row.fired_us is not None and row.fired_us < row.due_us for row in rows) == 1
    assert await count(sql, "true", "firings") == 4


async def test_a_commit_is_seen_when_it_has_ended_and_not_before(made: Installation, sql: Sql) -> None:
    async with CommitWatch(made) as watch:
        async with sql.transaction():
            xid: int = await sql.fetchval("select pg_current_xact_id()::xid::text::int8")
            await sql.execute("select pg_sleep(0.2)")
            before: int = await sql.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::int8")
        await sql.execute("select pg_sleep(0.2)")
        after: int = await sql.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::int8")
    assert before <= watch.visible_at([xid])[xid] <= after - 100_000


def test_arrivals_are_counted_by_what_they_are_of() -> None:
    seen = [Arrival("a_1_call", "/", 2_000), Arrival("a_1_call", "/", 9_000), Arrival("b_1_call", "/", 500)]
    due = {"a_1_call": 1_000, "b_1_call": 1_000}
    arrived = everything.compare([*seen, Arrival("limit", "/", 1)], lambda one: due.get(one.webhook_id), 0)
    assert (arrived.distinct, arrived.repeated, arrived.early) == (2, 1, 1)
    assert sorted(arrived.late_ms) == [-0.5, 1.0]


def test_several_runs_give_medians_but_the_worst_of_what_must_be_zero() -> None:
    def run(rate: float, lost: int, sample: float) -> dict[str, Any]:
        usage = {"kernel": Usage(rate, 10)}
        result = figures.Result("x", {"timers": 3}, ["kernel"], "", {"fired": 3}, rate, usage, [sample], lost)
        return result.as_json()

    merged = figures.median_of([run(10, 0, 1.0), run(30, 2, 9.0), run(20, 0, 2.0)])
    assert (merged["per_second"], merged["lost"], merged["p50_ms"]) == (20, 2, 2.0)
    assert merged["processes"] == {"kernel": {"cpu_s": 20, "peak_mb": 10}}
    assert merged["parameters"] == {"timers": 3}


def test_percentiles_are_values_that_were_seen() -> None:
    assert figures.percentiles([float(n) for n in range(1, 101)]) == {
        "p50_ms": 50.0,
        "p95_ms": 95.0,
        "p99_ms": 99.0,
        "max_ms": 100.0,
    }
    assert figures.percentiles([])["p50_ms"] is None


def test_a_missing_part_is_answered_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'psutil.*pip install "minoots\[bench\]"'):
        require_parts(plots=False)


def test_what_was_not_timed_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(BenchFailed, match="leave --plot out"):
        draw(tmp_path / "x.png", {"scenario": "idle"}, [])
