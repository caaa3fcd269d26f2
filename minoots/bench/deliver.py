"""`deliver`: from the due instant to the arrival at the receiver, with all roles, many destinations and tenants."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from minoots.bench import everything, firing, loading
from minoots.bench.everything import Arrival
from minoots.bench.figures import Result
from minoots.bench.lateness import LEAD_S, LOADED_PER_S, wait_until
from minoots.bench.loading import Cohort
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

MEASURED = "due instant to the request's arrival at the receiver"

_DUE = """
select id::text, (extract(epoch from greatest(fire_at, created_at)) * 1000000)::int8 from minoots.timers
 where tenant_id like 'bench-%'
"""


@dataclass(frozen=True, slots=True)
class DeliverParameters:
    """`rate` deliveries a second for `seconds`, spread evenly over tenants and destinations (a port each)."""

    rate: int = 300
    seconds: int = 20
    destinations: int = 10
    tenants: int = 10
    ballast: int = 1_000_000

    @property
    def timers(self) -> int:
        return self.rate * self.seconds


async def run(stage: Stage, parameters: DeliverParameters) -> Result:
    """All roles; the receivers in a process of their own, whose limit is measured first."""
    async with stage.installation() as made, everything.receivers(stage, parameters.destinations) as there:
        await firing.load_ballast(stage, made, parameters.ballast)
        now = await loading.database_now(made)
        lead_s = LEAD_S + parameters.timers / LOADED_PER_S
        start = now + timedelta(seconds=lead_s)
        span = timedelta(seconds=parameters.seconds)
        cohort = Cohort(
            parameters.timers,
            start,
            span,
            tenants=parameters.tenants,
            destinations=[f"{url}/hook" for url in there.urls],
        )
        await firing.load_due(stage, made, cohort)
        await loading.settle(made, "timers")
        async with everything.all_roles(stage, made) as (processes, _):
            await wait_until(stage, made, start - timedelta(seconds=1))
            stage.bar.step("delivering", of=parameters.timers)
            with stage.sampler(processes, {"receivers": there.asked.pid}) as sampler:
                await everything.until_arrived(stage, there, parameters.timers)
            complaints = [event for process in processes for event in process.complaints()]
        due = await _due(made)
        arrived = everything.compare(
            await there.arrivals(), lambda one: due.get(_timer(one)), await everything.clock_offset_us(made)
        )
        return Result(
            scenario="deliver",
            parameters=asdict(parameters),
            roles=[process.name for process in processes],
            measured=MEASURED,
            counts={"timers": parameters.timers, "arrived": arrived.distinct, "complaints": len(complaints)},
            per_second=arrived.distinct / (parameters.seconds + max(arrived.late_ms, default=0) / 1000),
            processes=sampler.usage,
            samples_ms=arrived.late_ms,
            lost=parameters.timers - arrived.distinct,
            duplicates=arrived.repeated,
            early=arrived.early,
            figures={"receiver_limit_per_second": there.per_second},
        )


def _timer(arrival: Arrival) -> str:
    """The `webhook-id` is the timer, the occurrence and the action."""
    return arrival.webhook_id.partition("_")[0]


async def _due(made: Installation) -> dict[str, int]:
    async with made.connection() as connection:
        rows = await connection.fetch(made.sql(_DUE), timeout=300)
        return {row[0]: row[1] for row in rows}
