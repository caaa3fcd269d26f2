"""`deliver`: from the due instant to the arrival at the receiver, with all roles, many destinations and tenants."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from minoots.bench import everything, firing, loading, trouble
from minoots.bench.everything import Arrival, Receivers
from minoots.bench.figures import Result
from minoots.bench.lateness import LEAD_S, LOADED_PER_S, wait_until
from minoots.bench.loading import Cohort
from minoots.bench.roles import RoleProcess
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage
from minoots.bench.trouble import Trouble

MEASURED = "due instant to the request's arrival at the receiver"
SETTLE_S = 30.0
BESIDE_LEAD_S = 20.0

_DUE = """
select id::text, (extract(epoch from greatest(fire_at, created_at)) * 1000000)::int8 from minoots.timers
 where tenant_id like $1 || '-%'
"""
_SETTLED = """
select count(*)::int as many, extract(epoch from max(settled_at) - $2)::float8 as seconds from minoots.timers
 where tenant_id like $1 || '-%' and settled_at is not null
"""


@dataclass(frozen=True, slots=True)
class DeliverParameters:
    """`rate` deliveries a second for `seconds`, spread evenly over tenants and destinations (a port each).

    With a `backlog` so many are due at once instead, and the figure is how fast they are settled. With `hang`, `dead`
    and `slow` endpoints of another tenant that hold `held` deliveries, it is measured without them, and beside them.
    """

    rate: int = 300
    seconds: int = 20
    destinations: int = 10
    tenants: int = 10
    ballast: int = 1_000_000
    backlog: int = 0
    hang: int = 0
    dead: int = 0
    slow: int = 0
    held: int = 50_000

    @property
    def timers(self) -> int:
        return self.backlog or self.rate * self.seconds

    @property
    def trouble(self) -> Trouble:
        return Trouble(self.hang, self.dead, self.slow, self.held)


async def run(stage: Stage, parameters: DeliverParameters) -> Result:
    """All roles; the receivers in a process of their own, whose limit is measured first."""
    async with stage.installation() as made, everything.receivers(stage, parameters.destinations) as there:
        await firing.load_ballast(stage, made, parameters.ballast)
        async with everything.all_roles(stage, made) as (processes, _):
            cohort = await _load(stage, made, there, parameters, "bench")
            with stage.sampler(processes, {"receivers": there.asked.pid}) as sampler:
                await wait_until(stage, made, cohort.start - timedelta(seconds=1))
                stage.bar.step("delivering", of=parameters.timers)
                await everything.until_arrived(stage, there, parameters.timers)
                settled_per_second = await _settled(stage, made, cohort)
            figures: dict[str, Any] = {}
            if parameters.trouble.endpoints:
                figures = await _beside(stage, made, there, parameters)
            complaints = [event for process in processes for event in process.complaints()]
        return await _result(
            made, there, parameters, processes, sampler.usage, settled_per_second, len(complaints), figures
        )


async def _result(
    made: Installation,
    there: Receivers,
    parameters: DeliverParameters,
    processes: list[RoleProcess],
    usage: Mapping[str, Any],
    settled_per_second: float,
    complaints: int,
    figures: dict[str, Any],
) -> Result:
    arrived = await _arrived(made, there, "bench")
    if parameters.trouble.endpoints:
        beside = await _arrived(made, there, "beside")
        figures |= trouble.compare(arrived.late_ms, beside.late_ms)
        figures["beside_lost"] = parameters.timers - beside.distinct
    return Result(
        scenario="deliver",
        parameters=asdict(parameters),
        roles=[process.name for process in processes],
        measured=MEASURED,
        counts={"timers": parameters.timers, "arrived": arrived.distinct, "complaints": complaints},
        per_second=settled_per_second,
        processes=usage,
        samples_ms=arrived.late_ms,
        lost=parameters.timers - arrived.distinct,
        duplicates=arrived.repeated,
        early=arrived.early,
        figures={
            "receiver_limit_per_second": there.per_second,
            "bare_per_second": there.bare_per_second,
            "ratio": settled_per_second / there.bare_per_second,
            **figures,
        },
    )


async def _load(
    stage: Stage,
    made: Installation,
    there: Receivers,
    parameters: DeliverParameters,
    tenant: str,
    lead_s: float = LEAD_S,
) -> Cohort:
    """What will fire, in time for it to be loaded."""
    now = await loading.database_now(made)
    start = now + timedelta(seconds=lead_s + parameters.timers / LOADED_PER_S)
    cohort = Cohort(
        parameters.timers,
        start,
        timedelta(seconds=0 if parameters.backlog else parameters.seconds),
        tenant=tenant,
        tenants=parameters.tenants,
        destinations=[f"{url}/hook" for url in there.urls],
    )
    await firing.load_due(stage, made, cohort)
    await loading.settle(made, "timers")
    return cohort


async def _beside(stage: Stage, made: Installation, there: Receivers, parameters: DeliverParameters) -> dict[str, Any]:
    """The same once more, while the endpoints of another tenant do their worst."""
    before = await there.count()
    async with trouble.endpoints(parameters.trouble) as urls:
        await trouble.hold(stage, made, parameters.trouble, urls)
        # Loading shares the machine with what is held.
        cohort = await _load(stage, made, there, parameters, "beside", BESIDE_LEAD_S)
        await wait_until(stage, made, cohort.start - timedelta(seconds=1))
        await trouble.run_cohort(stage, made, there, cohort, before)
        return {"trouble_lanes": await trouble.lane_states(made)}


async def _settled(stage: Stage, made: Installation, cohort: Cohort) -> float:
    """How many have been settled a second, from the first due instant to the last one's record."""
    stage.bar.step("waiting for the last record")
    many, seconds = 0, 0.0
    deadline = await loading.database_now(made) + timedelta(seconds=SETTLE_S)
    async with made.connection() as connection:
        while many < cohort.count and await _now(made, connection) < deadline:
            row = await connection.fetchrow(made.sql(_SETTLED), cohort.tenant, cohort.start, timeout=60)
            assert row is not None, "an aggregate has its row"
            many, seconds = row["many"], row["seconds"] or 0.0
    return many / max(seconds, cohort.span.total_seconds(), 0.001)


async def _now(made: Installation, connection: Any) -> datetime:
    now: datetime = await connection.fetchval(made.sql("select minoots.now() from pg_sleep(0.2)"))
    return now


async def _arrived(made: Installation, there: Receivers, tenant: str) -> everything.Arrived:
    due = await _due(made, tenant)
    return everything.compare(
        await there.arrivals(), lambda one: due.get(_timer(one)), await everything.clock_offset_us(made)
    )


def _timer(arrival: Arrival) -> str:
    """The `webhook-id` is the timer, the occurrence and the action."""
    return arrival.webhook_id.partition("_")[0]


async def _due(made: Installation, tenant: str) -> dict[str, int]:
    async with made.connection() as connection:
        rows = await connection.fetch(made.sql(_DUE), tenant, timeout=300)
        return {row[0]: row[1] for row in rows}
