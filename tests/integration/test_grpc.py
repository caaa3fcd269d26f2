"""The gRPC door over a real database and a real channel, as a client sees it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
import msgspec
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from minoots.access.keys import load_keys
from minoots.clock import SystemClock
from minoots.domain.json_text import read_json
from minoots.domain.timer import TimerRequest, admit
from minoots.embedded.ports import free_port
from minoots.embedded.postgres import EmbeddedPostgres
from minoots.errors import ConfigError, InvalidTimer, MalformedRequest
from minoots.kernel.firing import Kernel
from minoots.rpc.convert import ask, show
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from minoots.rpc.server import grpc_server, serve_grpc
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address, Settings
from minoots.store.database import Database
from tests.support.grpc_client import KEY, KEYS, GrpcClient, at, details, refused, structured
from tests.support.waiting import eventually


@pytest.fixture
async def door(database: Database) -> AsyncIterator[GrpcClient]:
    address = Address("127.0.0.1", free_port())
    async with (
        grpc_server(Timers(database), TimerChanges(database), load_keys("development", None, KEYS), None, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        yield GrpcClient(address, channel, f"t-{uuid4().hex[:8]}")


def webhook(**parameters: Any) -> pb.Action:
    action = pb.Action(id="call", kind="webhook")
    action.parameters.update({"url": "https://example.com/hook", **parameters})
    return action


def prefixed(tag: bytes, body: bytes) -> bytes:
    """A field of a message on the wire: its tag, the length as a varint, the bytes."""
    length, varint = len(body), b""
    while length > 0x7F:
        varint, length = varint + bytes([length & 0x7F | 0x80]), length >> 7
    return tag + varint + bytes([length]) + body


# ---- the verbs ----


async def test_a_timer_is_scheduled_got_listed_and_cancelled(door: GrpcClient) -> None:
    made = await door.schedule(name="coffee-break", labels={"team": "a"}, metadata=structured({"note": "brew"}))
    assert made.status == pb.TIMER_STATUS_SCHEDULED
    assert (made.tenant_id, made.name, made.requested_by) == (door.tenant, "coffee-break", "ann")
    assert made.duration_ms == 60_000
    assert made.fire_at.ToMicroseconds() - made.created_at.ToMicroseconds() == 60_000_000
    assert not made.HasField("fired_at")
    assert not made.HasField("action_bundle")
    assert await door.get(made.id) == made

    listed = await door.ListTimers(pb.TimerListRequest(tenant_id=door.tenant), metadata=[KEY])
    assert list(listed.timers) == [made]
    assert listed.next_page_token == ""

    cancel = pb.TimerCancelRequest(tenant_id=door.tenant, timer_id=made.id, requested_by="bob", reason="rain")
    gone = await door.CancelTimer(cancel, metadata=[KEY])
    assert gone.status == pb.TIMER_STATUS_CANCELLED
    assert (gone.cancelled_by, gone.cancel_reason) == ("bob", "rain")
    assert gone.version == made.version + 1
    assert await door.CancelTimer(cancel, metadata=[KEY]) == gone


async def test_everything_that_was_asked_comes_back_and_is_kept_as_rest_would_keep_it(
    door: GrpcClient, sql: asyncpg.Connection
) -> None:
    bundle = pb.ActionBundle(
        actions=[webhook(timeoutMs=5_000, headers={"x-a": "b"}, body={"n": 1, "half": 0.5, "list": [None, True, "x"]})],
        concurrency=2,
        retry_policy=pb.RetryPolicy(max_attempts=3, max_age_ms=9_000_000_000, backoff_multiplier=2),
    )
    target = "https://agents.example.com/mcp#one"
    binding = pb.AgentBinding(adapter="mcp", target=target, acknowledgement_timeout_ms=60_000)
    binding.payload_template.string_value = "wake"
    metadata = structured({"count": 3, "large": 1e20, "deep": {"a": [1, {"b": None}]}})
    made = await door.schedule(action_bundle=bundle, agent_binding=binding, metadata=metadata, duration_ms=90_000)
    assert made.action_bundle == bundle
    assert made.agent_binding == binding
    assert made.metadata == metadata
    row = await sql.fetchrow("select metadata, action_bundle from minoots.timers where id = $1", made.id)
    assert json.loads(row["metadata"]) == {"count": 3, "large": 10**20, "deep": {"a": [1, {"b": None}]}}
    assert '"count": 3,' in row["metadata"]
    assert '"timeoutMs": 5000' in row["action_bundle"]


def test_an_escalation_is_the_same_in_both_forms() -> None:
    bundle = pb.ActionBundle(actions=[webhook()])
    bundle.actions[0].escalation.after_attempts = 2
    bundle.actions[0].escalation.escalates_to.CopyFrom(pb.Action(id="human", kind="command"))
    bundle.actions[0].escalation.escalates_to.parameters.update({"line": "page"})
    assert ask(bundle) == {
        "actions": [
            {
                "id": "call",
                "kind": "webhook",
                "parameters": {"url": "https://example.com/hook"},
                "escalation": {
                    "afterAttempts": 2,
                    "escalatesTo": {"id": "human", "kind": "command", "parameters": {"line": "page"}},
                },
            }
        ]
    }
    assert show(pb.ActionBundle, ask(bundle)) == bundle


async def test_an_instant_may_be_given_and_a_page_leads_to_the_next(door: GrpcClient) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    ids = [
        (await door.schedule(duration_ms=None, fire_time=at(soon + timedelta(seconds=n)), labels={"n": str(n % 2)})).id
        for n in range(5)
    ]
    seen: list[str] = []
    token = ""
    while True:
        request = pb.TimerListRequest(tenant_id=door.tenant, page_size=2, page_token=token)
        page = await door.ListTimers(request, metadata=[KEY])
        seen += [timer.id for timer in page.timers]
        token = page.next_page_token
        if not token:
            break
    assert seen == ids[::-1]

    async def listed(**filters: Any) -> list[str]:
        page = await door.ListTimers(pb.TimerListRequest(tenant_id=door.tenant, **filters), metadata=[KEY])
        return [timer.id for timer in page.timers]

    assert await listed(labels={"n": "1"}) == [ids[3], ids[1]]
    assert await listed(due_before=at(soon + timedelta(seconds=2))) == [ids[1], ids[0]]
    assert await listed(due_after=at(soon + timedelta(seconds=2))) == [ids[4], ids[3]]
    assert await listed(statuses=[pb.TIMER_STATUS_PAUSED]) == []
    assert await listed(statuses=[pb.TIMER_STATUS_PAUSED, pb.TIMER_STATUS_SCHEDULED]) == ids[::-1]
    assert await listed(name="none") == []


async def test_a_fired_timer_shows_its_firing_and_cannot_be_cancelled(door: GrpcClient, database: Database) -> None:
    bundle = pb.ActionBundle(actions=[webhook()])
    made = await door.schedule(duration_ms=1, action_bundle=bundle)
    kernel = Kernel(database, SystemClock(), 500, lambda: None)

    async def has_fired() -> bool:
        await kernel.run_once()
        return (await door.get(made.id)).status == pb.TIMER_STATUS_FIRED

    await eventually(has_fired)
    page = await door.ListFirings(pb.FiringListRequest(tenant_id=door.tenant, timer_id=made.id), metadata=[KEY])
    (firing,) = page.firings
    assert (firing.timer_id, firing.occurrence, firing.status) == (made.id, 1, "dispatching")
    assert not firing.deliveries
    asked = pb.FiringGetRequest(tenant_id=door.tenant, timer_id=made.id, occurrence=1)
    (delivery,) = (await door.GetFiring(asked, metadata=[KEY])).deliveries
    assert (delivery.action_id, delivery.kind, delivery.status) == ("call", "webhook", "pending")
    assert delivery.lane == "https://example.com"
    assert delivery.HasField("next_attempt_at")
    assert not delivery.HasField("ack")

    cancel = pb.TimerCancelRequest(tenant_id=door.tenant, timer_id=made.id, requested_by="bob")
    error = await refused(door.CancelTimer(cancel, metadata=[KEY]))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    info, _, _ = details(error)
    assert (info.reason, info.domain, info.metadata["status"]) == ("TIMER_STATE_CONFLICT", "minoots", "fired")
    asked.occurrence = 2
    assert (await refused(door.GetFiring(asked, metadata=[KEY]))).code() is grpc.StatusCode.NOT_FOUND


async def test_a_batch_is_all_or_nothing(door: GrpcClient) -> None:
    items = [pb.TimerScheduleRequest(duration_ms=60_000, name=f"n{i}") for i in range(500)]
    request = pb.TimersCreateRequest(tenant_id=door.tenant, requested_by="ann", items=items, idempotency_key="k")
    made = await door.CreateTimers(request, metadata=[KEY])
    assert [timer.name for timer in made.timers] == [f"n{i}" for i in range(500)]
    assert {timer.requested_by for timer in made.timers} == {"ann"}
    assert await door.CreateTimers(request, metadata=[KEY]) == made

    items[3].duration_ms = 0
    items[4].idempotency_key = "mine"
    request = pb.TimersCreateRequest(tenant_id=door.tenant, requested_by="ann", items=items)
    error = await refused(door.CreateTimers(request, metadata=[KEY]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [pointer for pointer, _ in details(error)[1]] == ["/items/3/duration", "/items/4/idempotencyKey"]
    for wrong in ([], [pb.TimerScheduleRequest(duration_ms=1)] * 10_001):
        request = pb.TimersCreateRequest(tenant_id=door.tenant, requested_by="ann", items=wrong)
        assert details(await refused(door.CreateTimers(request, metadata=[KEY])))[1][0][0] == "/items"


async def test_a_full_batch_is_taken_and_answered(database: Database, door: GrpcClient) -> None:
    body = structured({"text": "x" * 2_000})
    items = [pb.TimerScheduleRequest(duration_ms=60_000, metadata=body) for _ in range(10_000)]
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(str(door.address), options=options) as channel:
        request = pb.TimersCreateRequest(tenant_id=door.tenant, requested_by="ann", items=items)
        made = await pb_grpc.HorologyKernelStub(channel).CreateTimers(request, metadata=[KEY], timeout=60)
    assert len({timer.id for timer in made.timers}) == 10_000


async def test_an_idempotency_key_answers_the_first_answer_once_more(door: GrpcClient) -> None:
    first = await door.schedule(name="a", idempotency_key="one")
    assert await door.schedule(name="a", idempotency_key="one") == first
    error = await refused(door.schedule(name="b", idempotency_key="one"))
    assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IDEMPOTENCY_MISMATCH")
    for wrong in ("", "x" * 256, "a\0b"):
        assert (await refused(door.schedule(idempotency_key=wrong))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_trace_context_is_kept(door: GrpcClient, sql: asyncpg.Connection) -> None:
    trace = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    request = pb.TimerScheduleRequest(tenant_id=door.tenant, requested_by="ann", duration_ms=60_000)
    made = await door.ScheduleTimer(request, metadata=[KEY, ("traceparent", trace)])
    assert await sql.fetchval("select traceparent from minoots.timers where id = $1", made.timer.id) == trace


# ---- the same refusals as REST ----


REFUSALS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"duration_ms": 0}, {"duration": 0}),
    ({"duration_ms": -5}, {"duration": -5}),
    ({"duration_ms": 2**62}, {"duration": 2**62}),
    ({"duration_ms": None}, {"duration": None}),
    ({"fire_time": Timestamp(seconds=4_000_000_000)}, {"fireAt": "2096-10-02T07:06:40Z"}),
    (
        {"duration_ms": None, "fire_time": Timestamp(seconds=230_000_000_000)},
        {"duration": None, "fireAt": "9258-06-04T00:53:20Z"},
    ),
    ({"requested_by": ""}, {"requestedBy": None}),
    ({"requested_by": "x" * 201}, {"requestedBy": "x" * 201}),
    ({"name": ""}, {"name": ""}),
    ({"name": "x" * 201}, {"name": "x" * 201}),
    ({"name": "a\0b"}, {"name": "a\0b"}),
    ({"labels": {"": "x"}}, {"labels": {"": "x"}}),
    ({"labels": {"k": "x" * 256}}, {"labels": {"k": "x" * 256}}),
    ({"labels": {f"k{i}": "" for i in range(65)}}, {"labels": {f"k{i}": "" for i in range(65)}}),
    ({"metadata": structured({"x": "y" * 65_536})}, {"metadata": {"x": "y" * 65_536}}),
    ({"action_bundle": pb.ActionBundle(actions=[webhook(), webhook()])}, {}),
    ({"action_bundle": pb.ActionBundle(actions=[pb.Action(id="-", kind="webhook")])}, {}),
    ({"action_bundle": pb.ActionBundle(actions=[webhook(url="ftp://x")])}, {}),
    ({"action_bundle": pb.ActionBundle(actions=[webhook(timeoutMs=0.5)])}, {}),
    ({"action_bundle": pb.ActionBundle(actions=[webhook(headers={"host": "x"})])}, {}),
    ({"action_bundle": pb.ActionBundle(actions=[pb.Action(id="a", kind="mail")])}, {}),
    ({"action_bundle": pb.ActionBundle(concurrency=0)}, {}),
    ({"action_bundle": pb.ActionBundle(retry_policy=pb.RetryPolicy(max_attempts=0))}, {}),
    ({"agent_binding": pb.AgentBinding(adapter="mcp")}, {}),
    ({"agent_binding": pb.AgentBinding(adapter="x", target="y")}, {}),
]


@pytest.mark.parametrize(("asked", "as_json"), REFUSALS)
async def test_a_refusal_has_the_words_and_the_pointers_of_rest(
    door: GrpcClient, asked: dict[str, Any], as_json: dict[str, Any]
) -> None:
    error = await refused(door.schedule(**asked))
    body = {"requestedBy": "ann", "duration": 60_000} | as_json
    for field, name in (("action_bundle", "actionBundle"), ("agent_binding", "agentBinding")):
        if field in asked:
            body[name] = MessageToDict(asked[field])
    with pytest.raises((InvalidTimer, MalformedRequest)) as expected:
        admit(read_json(msgspec.json.encode(body), TimerRequest))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == expected.value.detail
    if isinstance(expected.value, InvalidTimer):
        assert details(error)[1] == [(f.pointer, f.detail) for f in expected.value.findings]


async def test_an_instant_long_past_is_refused_and_one_just_past_fires(door: GrpcClient) -> None:
    now = datetime.now(UTC)
    error = await refused(door.schedule(duration_ms=None, fire_time=at(now - timedelta(minutes=2))))
    assert details(error)[1][0][0] == "/fireAt"
    assert (await door.schedule(duration_ms=None, fire_time=at(now - timedelta(seconds=5)))).id


@pytest.mark.parametrize("wrong", [Timestamp(seconds=2**60), Timestamp(seconds=5, nanos=-1)])
async def test_a_timestamp_that_is_no_instant_is_refused(door: GrpcClient, wrong: Timestamp) -> None:
    error = await refused(door.schedule(duration_ms=None, fire_time=wrong))
    assert details(error)[1][0][0] == "/fireAt"
    listing = pb.TimerListRequest(tenant_id=door.tenant, due_after=wrong)
    assert (await refused(door.ListTimers(listing, metadata=[KEY]))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_numbers_that_json_has_not_are_refused_where_they_stand(door: GrpcClient) -> None:
    error = await refused(door.schedule(metadata=structured({"a": [0, {"b/c": float("nan")}]})))
    assert details(error)[1][0][0] == "/metadata/a/1/b~1c"
    policy = pb.ActionBundle(retry_policy=pb.RetryPolicy(backoff_multiplier=float("inf")))
    assert (
        details(await refused(door.schedule(action_bundle=policy)))[1][0][0]
        == "/actionBundle/retryPolicy/backoffMultiplier"
    )


async def test_depth_and_size_have_their_limits(door: GrpcClient) -> None:
    def nested(levels: int) -> dict[str, Any]:
        inner: dict[str, Any] = {}
        for _ in range(levels - 1):
            inner = {"a": inner}
        return inner

    kept = await door.schedule(metadata=structured(nested(32)))
    assert kept.metadata == structured(nested(32))
    assert details(await refused(door.schedule(metadata=structured(nested(33)))))[1][0][0] == "/metadata"
    deep = b""
    for _ in range(200):  # Struct{fields: {"a": Value{struct_value: …}}}, past what protobuf itself reads
        deep = prefixed(b"\x0a", b"\x0a\x01a" + prefixed(b"\x12", prefixed(b"\x2a", deep)))
    request = pb.TimerScheduleRequest(tenant_id=door.tenant, requested_by="ann", duration_ms=60_000)
    call = door.channel.unary_unary("/minoots.timer.v1.HorologyKernel/ScheduleTimer")
    error = await refused(call(request.SerializeToString() + prefixed(b"\x42", deep), metadata=[KEY]))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "nested too deep" in error.details()
    large = pb.ActionBundle(actions=[webhook(body="x" * 300_000)])
    error = await refused(door.schedule(action_bundle=large))
    assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE")


async def test_a_refusal_never_outgrows_what_a_client_takes(door: GrpcClient) -> None:
    actions = [pb.Action(id="ä" * 2_000 + str(i), kind="webhook") for i in range(16)]
    for action in actions:
        action.parameters.update({"url": "https://x.example", "headers": {"é" * 2_000: "x"}})
    error = await refused(door.schedule(action_bundle=pb.ActionBundle(actions=actions)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error)[1][0][0] == "/actionBundle/actions/0/id"


@pytest.mark.parametrize(
    "fields",
    [{"page_size": 501}, {"page_size": -1}, {"page_token": "x"}, {"statuses": [0]}, {"statuses": [2]}, {"name": ""}],
)
async def test_a_list_takes_only_what_it_knows(door: GrpcClient, fields: dict[str, Any]) -> None:
    request = pb.TimerListRequest(tenant_id=door.tenant, **fields)
    assert (await refused(door.ListTimers(request, metadata=[KEY]))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_no_id_is_not_found(door: GrpcClient) -> None:
    for timer_id in ("", "x", str(uuid4()), "0" * 32):
        request = pb.TimerGetRequest(tenant_id=door.tenant, timer_id=timer_id)
        error = await refused(door.GetTimer(request, metadata=[KEY]))
        assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.NOT_FOUND, "TIMER_NOT_FOUND")


async def test_bytes_that_are_no_message_are_the_callers_fault(door: GrpcClient) -> None:
    call = door.channel.unary_unary("/minoots.timer.v1.HorologyKernel/ScheduleTimer")
    for raw in (b"\xff\xff", b"\x12\x02\xff\xfe"):
        error = await refused(call(raw, metadata=[KEY]))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


# ---- keys and tenants ----


async def test_a_key_is_needed_and_may_come_as_bearer(door: GrpcClient) -> None:
    request = pb.TimerListRequest(tenant_id=door.tenant)
    for metadata in ([], [("x-api-key", "nobody")], [("authorization", "Basic mnt_all_of_them")]):
        error = await refused(door.ListTimers(request, metadata=metadata))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    await door.ListTimers(request, metadata=[("authorization", "Bearer mnt_all_of_them")])


async def test_scopes_bound_what_a_key_may_do(door: GrpcClient) -> None:
    create = pb.TimerScheduleRequest(tenant_id=door.tenant, requested_by="x", duration_ms=1000)
    listing = pb.TimerListRequest(tenant_id=door.tenant)
    reads, writes = [("x-api-key", "mnt_only_reads")], [("x-api-key", "mnt_only_writes")]
    await door.ListTimers(listing, metadata=reads)
    await door.ScheduleTimer(create, metadata=writes)
    for call in (door.ScheduleTimer(create, metadata=reads), door.ListTimers(listing, metadata=writes)):
        assert (await refused(call)).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_tenant_comes_from_message_metadata_or_key_and_never_from_two(door: GrpcClient) -> None:
    one, two = ("x-api-key", "mnt_one_tenant"), ("x-api-key", "mnt_two_tenants")

    async def made(tenant: str, *metadata: tuple[str, str]) -> str:
        request = pb.TimerScheduleRequest(tenant_id=tenant, requested_by="x", duration_ms=60_000)
        return str((await door.ScheduleTimer(request, metadata=list(metadata))).timer.tenant_id)

    assert await made("", one) == "acme"
    assert await made("beta", two) == "beta"
    assert await made("", two, ("x-tenant-id", "beta")) == "beta"
    assert (await refused(made("", two))).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(made("acme", two, ("x-tenant-id", "beta")))).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(made("gamma", two))).code() is grpc.StatusCode.PERMISSION_DENIED
    assert details(await refused(made("a.b", KEY)))[1][0][0] == "/tenantId"
    items = [pb.TimerScheduleRequest(tenant_id=tenant, duration_ms=1) for tenant in ("acme", "beta")]
    request = pb.TimersCreateRequest(requested_by="x", items=items)
    error = await refused(door.CreateTimers(request, metadata=[two]))
    assert "items[1].tenant_id says 'beta'" in error.details()


async def test_no_tenant_sees_names_or_cancels_anothers_timer(door: GrpcClient) -> None:
    made = await door.schedule()
    other = f"other-{uuid4().hex[:6]}"
    calls = [
        door.GetTimer(pb.TimerGetRequest(tenant_id=other, timer_id=made.id), metadata=[KEY]),
        door.CancelTimer(pb.TimerCancelRequest(tenant_id=other, timer_id=made.id, requested_by="x"), metadata=[KEY]),
        door.ListFirings(pb.FiringListRequest(tenant_id=other, timer_id=made.id), metadata=[KEY]),
        door.GetFiring(pb.FiringGetRequest(tenant_id=other, timer_id=made.id, occurrence=1), metadata=[KEY]),
    ]
    for call in calls:
        error = await refused(call)
        assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.NOT_FOUND, "TIMER_NOT_FOUND")
    page = await door.ListTimers(pb.TimerListRequest(tenant_id=other), metadata=[KEY])
    assert not page.timers
    assert (await door.get(made.id)).status == pb.TIMER_STATUS_SCHEDULED


# ---- the server ----


async def test_health_and_reflection_answer_without_a_key(door: GrpcClient) -> None:
    health = health_pb2_grpc.HealthStub(door.channel)
    for service in ("", "minoots.timer.v1.HorologyKernel"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def ask() -> AsyncIterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="minoots.timer.v1.HorologyKernel")

    answers = [a async for a in reflection_pb2_grpc.ServerReflectionStub(door.channel).ServerReflectionInfo(ask())]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"minoots.timer.v1.HorologyKernel", "grpc.health.v1.Health"} <= names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answers[1].file_descriptor_response.file_descriptor_proto
    ]
    (service,) = next(f for f in files if f.package == "minoots.timer.v1").service
    assert {method.name for method in service.method} >= {"ScheduleTimer", "StreamTimerEvents", "GetFiring"}


async def test_a_port_in_use_is_said_in_a_sentence(door: GrpcClient, database: Database) -> None:
    with pytest.raises(ConfigError, match="set KERNEL_GRPC_ADDRESS to another") as refusal:
        await serve_grpc(
            Timers(database),
            TimerChanges(database),
            load_keys("development", None, None),
            None,
            door.address,
            asyncio.Event(),
        )
    assert str(door.address) in str(refusal.value)
    elsewhere = Address("203.0.113.7", door.address.port)
    with pytest.raises(ConfigError, match="KERNEL_GRPC_ADDRESS"):
        await serve_grpc(
            Timers(database),
            TimerChanges(database),
            load_keys("development", None, None),
            None,
            elsewhere,
            asyncio.Event(),
        )


async def test_a_deadline_or_a_cancellation_ends_the_work_of_a_call(
    door: GrpcClient, sql: asyncpg.Connection, database_url: str
) -> None:
    made = await door.schedule()
    cancel = pb.TimerCancelRequest(tenant_id=door.tenant, timer_id=made.id, requested_by="bob")

    async def waiting() -> int:
        return int(await sql.fetchval("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"))

    async def nobody_waits() -> bool:
        return await waiting() == 0

    blocker = await asyncpg.connect(database_url)
    try:
        async with blocker.transaction():
            await blocker.execute("select from minoots.timers where id = $1 for update", made.id)
            error = await refused(door.CancelTimer(cancel, metadata=[KEY], timeout=0.3))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await eventually(nobody_waits)
            call = door.CancelTimer(cancel, metadata=[KEY])
            await eventually(waiting)
            call.cancel()
            await eventually(nobody_waits)
    finally:
        await blocker.close()
    assert (await door.get(made.id)).status == pb.TIMER_STATUS_SCHEDULED


async def test_a_deadline_that_has_passed_does_nothing(door: GrpcClient) -> None:
    error = await refused(
        door.ScheduleTimer(
            pb.TimerScheduleRequest(tenant_id=door.tenant, requested_by="x", duration_ms=60_000),
            metadata=[KEY],
            # Of one that passes just now the server may get the last millisecond.
            timeout=-1,
        )
    )
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not (await door.ListTimers(pb.TimerListRequest(tenant_id=door.tenant), metadata=[KEY])).timers


async def test_a_database_that_is_away_is_unavailable_with_a_time_to_wait(own_postgres: EmbeddedPostgres) -> None:
    address = Address("127.0.0.1", free_port())
    keys = load_keys("development", None, KEYS)
    settings = Settings.from_env({"MINOOTS_DATABASE_URL": own_postgres.url}).store
    async with (
        Database(settings) as database,
        grpc_server(Timers(database), TimerChanges(database), keys, None, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        door = GrpcClient(address, channel, "away")
        made = await door.schedule()
        await own_postgres.kill()
        error = await refused(door.get(made.id))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details(error)[2].retry_delay.seconds == 2
        await own_postgres.start()
        assert await door.get(made.id) == made


async def test_the_unexpected_is_internal_and_tells_nothing(door: GrpcClient, sql: asyncpg.Connection) -> None:
    await sql.execute("drop function minoots.timer_text(minoots.timers) cascade")
    error = await refused(door.schedule())
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "timer_text" not in error.details()
    assert error.details().startswith("something went wrong")


async def test_the_calls_under_way_end_before_the_server_does(database: Database, database_url: str) -> None:
    address, stop = Address("127.0.0.1", free_port()), asyncio.Event()
    serving = asyncio.create_task(
        serve_grpc(Timers(database), TimerChanges(database), load_keys("development", None, KEYS), None, address, stop)
    )
    async with grpc.aio.insecure_channel(str(address)) as channel:
        await channel.channel_ready()
        door = GrpcClient(address, channel, "drain")
        made = await door.schedule()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        blocker = await asyncpg.connect(database_url)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("select from minoots.timers where id = $1 for update", made.id)
        cancel = pb.TimerCancelRequest(tenant_id="drain", timer_id=made.id, requested_by="bob")
        call = door.CancelTimer(cancel, metadata=[KEY])

        async def is_waiting() -> bool:
            count = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            return bool(await blocker.fetchval(count))

        await eventually(is_waiting)
        stop.set()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not serving.done()
        await transaction.rollback()
        assert (await call).status == pb.TIMER_STATUS_CANCELLED
        await asyncio.wait_for(serving, 3)
        await blocker.close()
