"""`create`: how many timers a second come in by one door, beside the barest door of its kind in the same run."""

import asyncio
import base64
import contextlib
import json
import socket
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from minoots.bench import bare, firing
from minoots.bench.asking import Asked, asking
from minoots.bench.failures import BenchFailed
from minoots.bench.figures import Result
from minoots.bench.loading import LABELS, METADATA, NOWHERE, webhook
from minoots.bench.roles import RoleProcess
from minoots.bench.servers import API_KEY, Installation
from minoots.bench.stage import Stage
from minoots.embedded.ports import free_port
from minoots.rpc.pb import timer_pb2
from minoots.rpc.servicer import SERVICE

ROUNDS = 3
WARM_S = 1.0
MEASURED = "one call, at the client; timers a second, the median of three rounds, each beside one of the bare door's"
METHOD = f"/{SERVICE}/ScheduleTimer"

_SCHEDULE = """
select minoots.schedule_timer('bench-0', 'measured', 'minoots bench', fire_in => interval '1 hour',
                              action_bundle => $1::jsonb, metadata => $2::jsonb, labels => $3::jsonb)
"""


@dataclass(frozen=True, slots=True)
class CreateParameters:
    """`door` is rest, grpc, sql or batch; `batch` timers are in a call of that door."""

    door: str = "rest"
    seconds: int = 15
    connections: int = 32
    batch: int = 1_000
    ballast: int = 1_000_000


async def run(stage: Stage, parameters: CreateParameters) -> Result:
    """The door's role, the bare door and the client, each a process; nothing else runs."""
    async with stage.installation() as made:
        await firing.load_ballast(stage, made, parameters.ballast)
        async with made.connection() as connection:
            await connection.execute(made.sql(bare.TABLE))
        ports = free_port(), free_port()
        async with contextlib.AsyncExitStack() as stack:
            processes = await stack.enter_async_context(_door(stage, made, parameters.door, ports[0]))
            beside = await stack.enter_async_context(_bare_door(made, parameters.door, ports[1]))
            client = await stack.enter_async_context(asking("client"))
            real = _question(made, parameters, ports[0])
            plain = None if parameters.door == "batch" else _bare_question(made, parameters, real, ports[1])
            others = {"client": client.pid, **({"bare door": beside.pid} if beside else {})}
            stage.bar.step(f"creating by {parameters.door}", of=ROUNDS)
            with stage.sampler(processes, others) as sampler:
                rounds = await _all_rounds(stage, client, parameters, real, plain)
        return await _result(made, parameters, processes, rounds, sampler.usage)


@contextlib.asynccontextmanager
async def _door(stage: Stage, made: Installation, door: str, port: int) -> AsyncIterator[list[RoleProcess]]:
    role = {"rest": "api", "batch": "api", "grpc": "grpc"}.get(door)
    if role is None:
        yield []  # plain SQL needs no role
        return
    address = f"127.0.0.1:{port}"
    more = {"MINOOTS_API_ADDRESS": address, "KERNEL_GRPC_ADDRESS": address}
    async with stage.roles(made, stage.groups(role), more) as processes:
        await until_listening(port)
        yield processes


@contextlib.asynccontextmanager
async def _bare_door(made: Installation, door: str, port: int) -> AsyncIterator[Asked | None]:
    if door not in ("rest", "grpc"):
        yield None
        return
    async with asking("bare", door, str(port), environ=made.environ) as started:
        await until_listening(port)
        yield started


async def until_listening(port: int) -> None:
    """Return when somebody takes connections there; raises BenchFailed after a while."""
    deadline = time.monotonic() + 15
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise BenchFailed(f"nobody listens on port {port}")
        await asyncio.sleep(0.02)


def _question(made: Installation, parameters: CreateParameters, port: int) -> dict[str, Any]:
    common = {"connections": parameters.connections}
    if parameters.door == "sql":
        values = [webhook(NOWHERE), METADATA, LABELS]
        return {**common, "kind": "sql", "url": made.servers.url, "statement": made.sql(_SCHEDULE), "values": values}
    if parameters.door == "grpc":
        message = base64.b64encode(_message().SerializeToString()).decode()
        metadata = [["x-api-key", API_KEY]]
        return {
            **common,
            "kind": "grpc",
            "target": f"127.0.0.1:{port}",
            "method": METHOD,
            "message": message,
            "metadata": metadata,
        }
    timer = {
        "requestedBy": "minoots bench",
        "name": "measured",
        "duration": "1h",
        "actionBundle": json.loads(webhook(NOWHERE)),
        "metadata": json.loads(METADATA),
        "labels": json.loads(LABELS),
    }
    is_batch = parameters.door == "batch"
    body = {"tenantId": "bench-0", **({"items": _items(timer, parameters.batch)} if is_batch else timer)}
    return {
        "connections": 4 if is_batch else parameters.connections,
        "kind": "http",
        "host": "127.0.0.1",
        "port": port,
        "path": "/timers/batch" if is_batch else "/timers",
        "headers": {"content-type": "application/json", "x-api-key": API_KEY},
        "body": json.dumps(body),
    }


def _items(timer: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """They do the same, each with metadata of its own."""
    return [timer | {"metadata": timer["metadata"] | {"orderId": f"A-{nth}"}} for nth in range(count)]


def _message() -> timer_pb2.TimerScheduleRequest:
    message = timer_pb2.TimerScheduleRequest(
        tenant_id="bench-0",
        requested_by="minoots bench",
        name="measured",
        duration_ms=3_600_000,
        labels=json.loads(LABELS),
    )
    message.metadata.update(json.loads(METADATA))
    bundle = json.loads(webhook(NOWHERE))
    action = message.action_bundle.actions.add(id=bundle["actions"][0]["id"], kind="webhook")
    action.parameters.update(bundle["actions"][0]["parameters"])
    message.action_bundle.retry_policy.max_attempts = bundle["retryPolicy"]["maxAttempts"]
    return message


def _bare_question(
    made: Installation, parameters: CreateParameters, real: Mapping[str, Any], port: int
) -> dict[str, Any]:
    """The same call for the bare door; for SQL the bare insert."""
    if parameters.door == "sql":
        insert = made.sql(bare.INSERT).replace("$2", "now() + interval '1 hour'").replace("$3", "$2")
        body = json.dumps({"actionBundle": json.loads(webhook(NOWHERE)), "metadata": json.loads(METADATA)})
        return {**real, "statement": insert, "values": ["bench-0", body]}
    return {**real, "target": f"127.0.0.1:{port}"} if parameters.door == "grpc" else {**real, "port": port}


@dataclass(slots=True)
class _Rounds:
    """What the client said, the warming up included in `created` and nowhere else."""

    real: list[Mapping[str, Any]]
    plain: list[Mapping[str, Any]]
    created: int


async def _all_rounds(
    stage: Stage, client: Asked, parameters: CreateParameters, real: Mapping[str, Any], plain: Mapping[str, Any] | None
) -> _Rounds:
    """Turn by turn, so that what else the machine does meets both."""
    warm = await _ask(client, {**real, "seconds": WARM_S})
    rounds = _Rounds([], [], warm["good"])
    if plain is not None:
        await _ask(client, {**plain, "seconds": WARM_S})
    for nth in range(ROUNDS):
        rounds.real.append(await _ask(client, {**real, "seconds": parameters.seconds / ROUNDS}))
        rounds.created += rounds.real[-1]["good"]
        if plain is not None:
            rounds.plain.append(await _ask(client, {**plain, "seconds": parameters.seconds / ROUNDS}))
        stage.bar.at(nth + 1)
    return rounds


async def _ask(client: Asked, question: Mapping[str, Any]) -> Mapping[str, Any]:
    answer: Mapping[str, Any] = await client.ask(json.dumps(question))
    if not answer["good"]:
        raise BenchFailed(f"no call succeeded; the first answer was: {answer['said']}")
    return answer


async def _result(
    made: Installation,
    parameters: CreateParameters,
    processes: list[RoleProcess],
    rounds: _Rounds,
    usage: Mapping[str, Any],
) -> Result:
    size = parameters.batch if parameters.door == "batch" else 1
    async with made.connection() as connection:
        rows = await connection.fetchval(
            made.sql("select count(*) from minoots.timers where tenant_id = 'bench-0'"), timeout=120
        )
    rates = [one["good"] * size / one["seconds"] for one in rounds.real]
    plain = [one["good"] / one["seconds"] for one in rounds.plain]
    ratios = [mine / other for mine, other in zip(rates, plain, strict=False)]
    missing = rounds.created * size - rows
    return Result(
        scenario="create",
        parameters=asdict(parameters),
        roles=[process.name for process in processes],
        measured=MEASURED,
        counts={"timers": rows, "calls": rounds.created, "refused": sum(one["bad"] for one in rounds.real)},
        per_second=statistics.median(rates),
        processes=usage,
        samples_ms=[sample for one in rounds.real for sample in one["ms"]],
        lost=max(0, missing),
        duplicates=max(0, -missing),
        figures={
            "bare_per_second": statistics.median(plain) if plain else None,
            "ratio": statistics.median(ratios) if ratios else None,
        },
    )
