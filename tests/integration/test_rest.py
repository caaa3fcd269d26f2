"""The REST door over a real database, as a client sees it."""

import asyncio
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from yarl import URL

from minoots.access.keys import load_keys
from minoots.clock import SystemClock
from minoots.embedded.ports import free_port
from minoots.errors import ConfigError
from minoots.kernel.firing import Kernel
from minoots.rest import body, server
from minoots.rest.app import create_app
from minoots.rest.server import serve_rest
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address, StoreSettings
from minoots.store.database import Database

# ---- fixtures: a migrated, empty database; the door on a free port ----


@dataclass
class Switch:
    """Readiness as a test wants it."""

    missing: list[str]

    async def problems(self) -> list[str]:
        return self.missing


KEYS = """[
    {"key": "mnt_all_of_them", "userId": "ann"},
    {"key": "mnt_one_tenant", "userId": "bob", "tenants": ["acme"]},
    {"key": "mnt_two_tenants", "userId": "cy", "tenants": ["acme", "beta"]},
    {"key": "mnt_only_reads", "userId": "dee", "scopes": ["timers:read"]},
    {"key": "mnt_only_writes", "userId": "eve", "scopes": ["timers:write"]}
]"""


@dataclass
class Door:
    """A served application with a client that has a key and a tenant of its own."""

    url: str
    port: int
    tenant: str
    http: aiohttp.ClientSession
    database: Database
    switch: Switch
    stop: asyncio.Event
    serving: asyncio.Task[None]

    async def call(self, method: str, path: str, **given: Any) -> tuple[int, Any, Any]:
        """Status, decoded body and headers."""
        headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": self.tenant} | given.pop("headers", {})
        headers = {name: value for name, value in headers.items() if value is not None}
        async with self.http.request(method, self.url + path, headers=headers, **given) as answer:
            body = await answer.json(content_type=None)
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json"
                assert body["status"] == answer.status
                assert body["type"].startswith("urn:minoots:problem:")
                assert body["detail"]
            return answer.status, body, answer.headers

    async def create(self, **fields: Any) -> Any:
        status, timer, _ = await self.call("POST", "/timers", json={"requestedBy": "test", "duration": "1h"} | fields)
        assert status == 201, timer
        return timer


@pytest.fixture
async def door(module_database_url: str) -> AsyncIterator[Door]:
    port = free_port()
    stop = asyncio.Event()
    switch = Switch([])
    async with Database(StoreSettings(module_database_url, "minoots", 8, True)) as database:
        app = create_app(Timers(database), TimerChanges(database), load_keys("development", None, KEYS), switch)
        serving = asyncio.create_task(serve_rest(app, Address("127.0.0.1", port), stop))
        await until_open(port)
        tenant = f"t{uuid.uuid4().hex[:10]}"
        async with aiohttp.ClientSession() as http:
            yield Door(f"http://127.0.0.1:{port}", port, tenant, http, database, switch, stop, serving)
        stop.set()
        await serving


async def until_open(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


# ---- creating and showing ----


async def test_a_created_timer_comes_back_whole(door: Door) -> None:
    asked = {
        "tenantId": door.tenant,
        "requestedBy": "cli",
        "name": "coffee-break",
        "duration": "30s",
        "metadata": {"note": "brew beans", "n": 1.5, "deep": [1, {"x": None}]},
        "labels": {"room": "kitchen"},
        "actionBundle": {"actions": [{"id": "ring", "kind": "webhook", "parameters": {"url": "http://127.0.0.1/x"}}]},
    }
    status, timer, headers = await door.call("POST", "/timers", json=asked)
    assert status == 201
    assert headers["Location"] == f"/timers/{timer['id']}"
    assert headers["ETag"] == '"1"'
    assert headers["Content-Type"] == "application/json"
    assert timer["status"] == "scheduled"
    assert timer["durationMs"] == 30_000
    assert timer["metadata"] == asked["metadata"]
    assert timer["labels"] == asked["labels"]
    assert timer["actionBundle"] == asked["actionBundle"]
    assert timer["schedule"] is timer["agentBinding"] is timer["firedAt"] is None
    status, shown, headers = await door.call("GET", f"/timers/{timer['id'].upper()}")
    assert (status, shown, headers["ETag"]) == (200, timer, '"1"')


@pytest.mark.parametrize(("duration", "ms"), [("1h30m", 5_400_000), ("PT30S", 30_000), (1500, 1500), ("2.5s", 2500)])
async def test_a_duration_is_written_in_many_ways(door: Door, duration: Any, ms: int) -> None:
    assert (await door.create(duration=duration))["durationMs"] == ms


async def test_every_broken_field_has_its_pointer(door: Door) -> None:
    status, problem, _ = await door.call("POST", "/timers", json={"duration": 0, "metadata": []})
    assert status == 422
    assert problem["type"] == "urn:minoots:problem:invalid-timer"
    assert {e["pointer"] for e in problem["errors"]} == {"/requestedBy", "/duration", "/metadata"}
    assert problem["pointer"] == problem["errors"][0]["pointer"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b"\xff\xfe", 400, None),
        (b"[]", 422, ""),
        (b'{"requestedBy":"a","duration":"1s","nmae":"x"}', 422, "/nmae"),
        (b'{"requestedBy":1,"duration":"1s"}', 422, "/requestedBy"),
        (b'{"requestedBy":"a\\u0000","duration":"1s"}', 422, "/requestedBy"),
        (b'{"requestedBy":"a","duration":"1s","metadata":{"x":"\\ud800"}}', 400, None),
        (b'{"requestedBy":"a","duration":"1s","metadata":{"x":9223372036854775808}}', 422, "/metadata/x"),
        (b'{"requestedBy":"a","duration":"1s","metadata":{"x":1e999}}', 422, "/metadata/x"),
        (b'{"requestedBy":"a","duration":"1s","metadata":' + b'{"a":' * 40 + b"1" + b"}" * 41, 422, None),
        (b"[" * 100_000, 422, ""),
        (b'{"requestedBy":"a","fireAt":"2001-01-01T00:00:00Z"}', 422, "/fireAt"),
        (b'{"requestedBy":"a","fireAt":"9999-12-31T23:59:59-23:59"}', 422, "/fireAt"),
    ],
)
async def test_a_body_that_is_no_timer_is_refused(door: Door, body: bytes, status: int, pointer: str | None) -> None:
    found, problem, _ = await door.call("POST", "/timers", data=body, headers={"Content-Type": "application/json"})
    assert found == status, problem
    if pointer is not None:
        assert problem["pointer"] == pointer


async def test_an_idempotency_key_replays_the_first_answer(door: Door) -> None:
    asked = {"requestedBy": "a", "duration": "1h"}
    key = {"Idempotency-Key": "order-17"}
    _, first, _ = await door.call("POST", "/timers", json=asked, headers=key)
    status, again, headers = await door.call("POST", "/timers", json=asked, headers=key)
    assert (status, again) == (201, first)
    assert headers["Location"] == f"/timers/{first['id']}"
    status, problem, _ = await door.call("POST", "/timers", json=asked | {"duration": "2h"}, headers=key)
    assert (status, problem["type"]) == (422, "urn:minoots:problem:idempotency-mismatch")
    for odd in ("", "x" * 256):
        assert (await door.call("POST", "/timers", json=asked, headers={"Idempotency-Key": odd}))[0] == 400


async def test_a_traceparent_is_kept_when_it_is_one(door: Door) -> None:
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for given, kept in ((good, good), ("00-xyz", None), (f"00-{'0' * 32}-00f067aa0ba902b7-01", None)):
        asked = {"requestedBy": "a", "duration": "1h"}
        _, timer, _ = await door.call("POST", "/timers", json=asked, headers={"traceparent": given})
        async with door.database.connection() as connection:
            statement = "select traceparent from minoots.timers where id = $1"
            assert await connection.fetchval(statement, uuid.UUID(timer["id"])) == kept


# ---- batches ----


async def test_a_batch_keeps_its_order_and_passes_on_who_asks(door: Door) -> None:
    items = [{"name": f"n{i}", "duration": i + 1} for i in range(300)]
    items[7]["requestedBy"] = "somebody else"
    status, made, _ = await door.call("POST", "/timers/batch", json={"requestedBy": "importer", "items": items})
    assert status == 201
    assert [t["name"] for t in made["items"]] == [i["name"] for i in items]
    assert {t["requestedBy"] for t in made["items"]} == {"importer", "somebody else"}


async def test_a_batch_of_ten_thousand_is_taken_whole(door: Door) -> None:
    items = [{"requestedBy": "a", "duration": "1d", "metadata": {"n": i}} for i in range(10_000)]
    key = {"Idempotency-Key": "nightly"}
    status, made, _ = await door.call("POST", "/timers/batch", json={"items": items}, headers=key)
    assert status == 201
    assert [t["metadata"]["n"] for t in made["items"]] == list(range(10_000))
    _, again, _ = await door.call("POST", "/timers/batch", json={"items": items}, headers=key)
    assert again == made


async def test_findings_of_a_batch_name_their_items(door: Door) -> None:
    items: list[dict[str, Any]] = [{"requestedBy": "a", "duration": "1s"} for _ in range(60)]
    items[3]["duration"] = "soon"
    items[5]["name"] = 7
    items[9] = {"duration": "1s"}
    status, problem, _ = await door.call("POST", "/timers/batch", json={"items": items})
    assert status == 422
    assert [e["pointer"] for e in problem["errors"]] == ["/items/3/duration", "/items/5/name", "/items/9/requestedBy"]
    status, problem, _ = await door.call("POST", "/timers/batch", json={"items": [{"duration": 0}] * 60})
    assert (status, len(problem["errors"])) == (422, 20)
    past = [{"requestedBy": "a", "duration": "1s"}, {"requestedBy": "a", "fireAt": "2001-01-01T00:00:00Z"}]
    status, problem, _ = await door.call("POST", "/timers/batch", json={"items": past})
    assert (status, problem["pointer"]) == (422, "/items/1/fireAt")
    assert (await door.call("GET", "/timers"))[1]["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[]}',
        b'{"items":[null]}',
        b'{"items":{}}',
        b'{"items":[{"requestedBy":"a\\u0000","duration":"1s"}]}',
        b'{"requestedBy":"a\\u0000","items":[{"duration":"1s"}]}',
        b'{"items":[' + b"{},".join([b""] * 10_001) + b"{}]}",
        b'{"items":[{"requestedBy":"a","duration":"1s","metadata":{"x":"' + b"y" * 262_144 + b'"}}]}',
    ],
)
async def test_a_batch_that_breaks_a_rule_is_refused(door: Door, body: bytes) -> None:
    sent = {"Content-Type": "application/json"}
    assert (await door.call("POST", "/timers/batch", data=body, headers=sent))[0] == 422


async def test_tenants_of_a_batch_may_not_differ(door: Door) -> None:
    item = {"requestedBy": "a", "duration": "1h"}
    for items, status in (
        ([item | {"tenantId": "acme"}, item], 201),
        ([item | {"tenantId": "acme"}, item | {"tenantId": "beta"}], 400),
    ):
        found, _, _ = await door.call("POST", "/timers/batch", json={"items": items}, headers={"x-tenant-id": None})
        assert found == status
    body = {"tenantId": "acme", "items": [item | {"tenantId": "beta"}]}
    found, problem, _ = await door.call("POST", "/timers/batch", json=body, headers={"x-tenant-id": None})
    assert found == 400
    assert "items/0/tenantId" in problem["detail"]


# ---- lists ----


async def test_a_list_is_paged_newest_first(door: Door) -> None:
    made = [(await door.create(name=f"n{i}"))["id"] for i in range(5)]
    seen: list[str] = []
    path = "/timers?limit=2"
    cursor = ""
    while True:
        _, page, _ = await door.call("GET", path + cursor)
        seen += [t["id"] for t in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == made[::-1]


async def test_a_list_is_filtered(door: Door) -> None:
    red = await door.create(name="a+b", labels={"colour": "red", "url": "http://x"})
    both = await door.create(labels={"colour": "red", "size": "l"}, duration="5h")
    await door.call("POST", f"/timers/{both['id']}/cancel", json={"requestedBy": "x"})

    async def ids(query: str) -> list[str]:
        status, page, _ = await door.call("GET", f"/timers?{query}")
        assert status == 200, page
        return [t["id"] for t in page["items"]]

    assert await ids("label=colour:red") == [both["id"], red["id"]]
    assert await ids("label=colour:red&label=size:l") == [both["id"]]
    assert await ids("label=url:http://x") == [red["id"]]
    assert await ids("name=a%2Bb") == [red["id"]]
    assert await ids("status=scheduled") == [red["id"]]
    assert await ids("status=scheduled&status=cancelled") == [both["id"], red["id"]]
    assert await ids(f"dueBefore={both['fireAt']}") == [red["id"]]
    assert await ids(f"dueAfter={red['fireAt']}") == [both["id"]]
    assert len(await ids("dueAfter=2020-01-01T00:00:00+01:00")) == 2  # the + was not escaped
    assert len(await ids("dueAfter=2020-01-01T00:00:00%2B01:00")) == 2


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=x",
        "limit=1&limit=1",
        "limit=%D9%A1",
        "cursor=",
        "cursor=nonsense",
        "status=nope",
        "status=",
        "label=novalue",
        "label=:x",
        "label=a:1&label=a:2",
        "dueBefore=yesterday",
        "dueAfter=2030-01-01T00:00:00",
        "name=",
        "name=%00",
        "name=%FF",
        "name=%zz",
        "name=%",
        "stauts=fired",
        "tenantId=a&tenantId=b",
        "&".join(f"label=a{i}:x" for i in range(65)),
        "&".join(f"label=a{i}:x" for i in range(300)),
    ],
)
async def test_a_query_that_makes_no_sense_is_a_400(door: Door, query: str) -> None:
    status, answer = await raw(door, f"GET /timers?{query} HTTP/1.1")
    assert status == 400, answer
    assert b"application/problem+json" in answer


async def raw(door: Door, line: str, headers: bytes = b"", body: bytes = b"") -> tuple[int, bytes]:
    """One request byte by byte, as no client library would send it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    head = f"{line}\r\nHost: x\r\nConnection: close\r\nX-API-Key: mnt_all_of_them\r\n".encode()
    tenant = b"" if b"x-tenant-id" in headers else f"x-tenant-id: {door.tenant}\r\n".encode()
    writer.write(head + tenant + headers + b"\r\n" + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


# ---- cancelling, firing ----


async def test_a_cancelled_timer_says_who_and_why(door: Door) -> None:
    timer = await door.create()
    path = f"/timers/{timer['id']}/cancel"
    status, cancelled, headers = await door.call("POST", path, json={"requestedBy": "ann", "reason": "rain"})
    assert (status, headers["ETag"]) == (200, '"2"')
    assert (cancelled["status"], cancelled["cancelledBy"], cancelled["cancelReason"]) == ("cancelled", "ann", "rain")
    status, again, _ = await door.call("POST", path, json={"requestedBy": "bob"})
    assert (status, again) == (200, cancelled)


async def test_a_cancel_says_who_asks(door: Door) -> None:
    path = f"/timers/{(await door.create())['id']}/cancel"
    status, problem, _ = await door.call("POST", path, json={})
    assert (status, problem["pointer"]) == (422, "/requestedBy")
    assert (await door.call("POST", path))[0] == 400
    assert (await door.call("POST", path, json={"requestedBy": "a", "reason": "x" * 1001}))[0] == 422
    assert (await door.call("POST", path, json={"requestedBy": "a\0"}))[0] == 422


async def test_a_fired_timer_has_a_firing_and_cannot_be_cancelled(door: Door) -> None:
    actions = [{"id": "ring", "kind": "webhook", "parameters": {"url": "http://127.0.0.1:9/x"}}]
    timer = await door.create(duration=1, actionBundle={"actions": actions})
    kernel = Kernel(door.database, SystemClock(), 500, lambda: None)
    async with asyncio.timeout(10):
        while (await door.call("GET", f"/timers/{timer['id']}"))[1]["status"] == "scheduled":
            await kernel.tick()
    status, problem, _ = await door.call("POST", f"/timers/{timer['id']}/cancel", json={"requestedBy": "late"})
    assert (status, problem["timerStatus"]) == (409, "fired")
    _, page, _ = await door.call("GET", f"/timers/{timer['id']}/firings")
    assert page["nextCursor"] is None
    assert [f["occurrence"] for f in page["items"]] == [1]
    assert "deliveries" not in page["items"][0]
    status, firing, _ = await door.call("GET", f"/timers/{timer['id']}/firings/1")
    assert status == 200
    assert firing["timerId"] == timer["id"]
    assert firing["latenessMs"] >= 0
    (delivery,) = firing["deliveries"]
    assert (delivery["actionId"], delivery["status"], delivery["attempts"]) == ("ring", "pending", [])


@pytest.mark.parametrize("occurrence", ["0", "2", "x", "01", "99999999999999999999", "-1", "1.0"])
async def test_a_firing_that_is_none_is_a_404(door: Door, occurrence: str) -> None:
    timer = await door.create()
    status, problem, _ = await door.call("GET", f"/timers/{timer['id']}/firings/{occurrence}")
    assert (status, problem["type"]) == (404, "urn:minoots:problem:firing-not-found")


NOBODY = "4f9cc848-10e4-4e90-999f-76a0f395f33e"


@pytest.mark.parametrize("text", ["x", "0", "%00", "%FF", "%zz", NOBODY, "{" + NOBODY + "}"])
@pytest.mark.parametrize("rest", ["", "/firings", "/firings/1", "/cancel"])
async def test_an_id_that_is_none_is_a_404(door: Door, text: str, rest: str) -> None:
    if rest == "/cancel":
        body = b'{"requestedBy":"a"}'
        headers = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        status, answer = await raw(door, f"POST /timers/{text}{rest} HTTP/1.1", headers, body)
    else:
        status, answer = await raw(door, f"GET /timers/{text}{rest} HTTP/1.1")
    assert status == 404, answer
    assert b"urn:minoots:problem:timer-not-found" in answer


@pytest.mark.parametrize("query", ["limit=0", "cursor=0", "cursor=x", "cursor=99999999999", "status=fired"])
async def test_a_list_of_firings_refuses_what_makes_no_sense(door: Door, query: str) -> None:
    timer = await door.create()
    assert (await door.call("GET", f"/timers/{timer['id']}/firings?{query}"))[0] == 400


# ---- changing ----


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"requestedBy": null}'])
async def test_a_step_may_go_without_a_body(body: bytes | None, door: Door) -> None:
    timer = await door.create()
    for step, status in (("pause", "paused"), ("resume", "scheduled"), ("fire", "fired")):
        given = {} if body is None else {"data": body, "headers": {"Content-Type": "application/json"}}
        answered, shown, headers = await door.call("POST", f"/timers/{timer['id']}/{step}", **given)
        assert (answered, shown["status"], headers["ETag"]) == (200, status, f'"{shown["version"]}"')


@pytest.mark.parametrize(
    ("step", "body", "status", "pointer"),
    [
        ("pause", {"reason": "x"}, 422, "/reason"),
        ("pause", {"requestedBy": ""}, 422, "/requestedBy"),
        ("resume", {"catchUp": "yes"}, 422, "/catchUp"),
        ("reschedule", {}, 422, "/duration"),
        ("reschedule", {"duration": "1h", "every": "1h"}, 422, "/duration"),
        ("reschedule", {"schedule": {"cron": "* * *"}}, 422, "/schedule/cron"),
        ("reschedule", {"fireAt": "2001-01-01T00:00:00Z"}, 422, "/fireAt"),
        ("fire", {"tenantId": "another"}, 400, None),
        ("fire", [], 422, ""),
    ],
)
async def test_a_step_says_what_it_cannot_take(
    step: str, body: Any, status: int, pointer: str | None, door: Door
) -> None:
    timer = await door.create()
    answered, problem, _ = await door.call("POST", f"/timers/{timer['id']}/{step}", json=body)
    assert (answered, problem.get("pointer")) == (status, pointer)
    assert (await door.call("GET", f"/timers/{timer['id']}"))[1] == timer


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ('"1"', 200), ("*", 200), ('"2"', 412), ('W/"1"', 412), ('"x"', 412), ('"01"', 412), ("1", 400), ("", 400),
        ('"1", "2"', 400), ('"9999999999999999999"', 412),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_if_match_names_the_version_that_may_be_changed(method: str, tag: str, status: int, door: Door) -> None:
    fields = {"requestedBy": "test", "duration": "1h"}
    _, timer, _ = await door.call("PUT", "/timers/by-name/tea", json=fields)
    path = "/timers/by-name/tea" if method == "PUT" else f"/timers/{timer['id']}"
    answered, shown, headers = await door.call(method, path, json=fields, headers={"If-Match": tag})
    assert answered == status
    if status == 200:
        assert (shown["version"], headers["ETag"]) == (2, '"2"')


async def test_a_step_may_name_the_version_too_and_a_put_that_there_is_none(door: Door) -> None:
    fields = {"requestedBy": "test", "duration": "1h"}
    _, timer, _ = await door.call("PUT", "/timers/by-name/tea", json=fields, headers={"If-None-Match": "*"})
    for step, given in (("pause", {}), ("resume", {}), ("reschedule", {"duration": "2h"}), ("fire", {})):
        path = f"/timers/{timer['id']}/{step}"
        assert (await door.call("POST", path, json=given, headers={"If-Match": '"99"'}))[0] == 412, step
    again = await door.call("PUT", "/timers/by-name/tea", json=fields, headers={"If-None-Match": "*"})
    assert again[0] == 412
    assert (await door.call("GET", f"/timers/{timer['id']}"))[1] == timer
    assert (await door.call("PUT", "/timers/by-name/tea", json=fields, headers={"If-None-Match": '"1"'}))[0] == 400


@pytest.mark.parametrize(
    ("path", "name"),
    [("tea", "tea"), ("a%2Fb", "a/b"), ("a/b", "a/b"), ("gr%C3%BCn%20%3F", "grün ?"), ("100%25", "100%"), ("+", "+")],
)
async def test_a_name_is_read_from_the_path(path: str, name: str, door: Door) -> None:
    url = URL(f"{door.url}/timers/by-name/{path}", encoded=True)
    headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": door.tenant}
    for status in (201, 200):
        async with door.http.put(url, headers=headers, json={"requestedBy": "a", "every": "1h"}) as answer:
            timer = await answer.json()
            assert (answer.status, timer["name"]) == (status, name)
            assert answer.headers.get("Location") == (f"/timers/{timer['id']}" if status == 201 else None)
    async with door.http.put(url, headers=headers, json={"requestedBy": "a", "every": "1h", "name": "x"}) as answer:
        assert answer.status == 400
    async with door.http.put(url, headers=headers, json={"requestedBy": "a", "every": "1h", "name": name}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["%00", "a%ff", "x" * 201, "%zz"])
async def test_a_name_that_is_none_is_refused(path: str, door: Door) -> None:
    url = URL(f"{door.url}/timers/by-name/{path}", encoded=True)
    headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": door.tenant}
    async with door.http.put(url, headers=headers, json={"requestedBy": "a", "every": "1h"}) as answer:
        assert answer.status in (400, 422)


async def test_a_timer_says_which_methods_it_has(door: Door) -> None:
    timer = await door.create()
    async with door.http.options(f"{door.url}/timers/{timer['id']}") as answer:
        assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, PATCH")


async def test_a_preview_is_asked_for_by_whoever_may_read(door: Door) -> None:
    asked = {"every": "1h", "after": "2030-01-01T00:30:00Z", "count": 2}
    status, shown, _ = await door.call(
        "POST", "/schedules/preview", json=asked, headers={"X-API-Key": "mnt_only_reads", "x-tenant-id": None}
    )
    assert (status, shown) == (
        200,
        {
            "items": [
                {"at": "2030-01-01T01:00:00.000000Z", "local": "2030-01-01T01:00:00+00:00"},
                {"at": "2030-01-01T02:00:00.000000Z", "local": "2030-01-01T02:00:00+00:00"},
            ]
        },
    )
    refused, _, _ = await door.call("POST", "/schedules/preview", json=asked, headers={"X-API-Key": "mnt_only_writes"})
    assert refused == 403
    for fields, pointer in (
        ({"count": 0}, "/count"), ({"count": 101}, "/count"), ({"after": "soon"}, "/after"),
        ({"after": "9000-01-01T00:00:00Z"}, "/after"), ({"cron": "@daily"}, "/cron"), ({"every": None}, "/schedule"),
    ):  # fmt: skip
        status, problem, _ = await door.call("POST", "/schedules/preview", json=asked | fields)
        assert (status, problem["pointer"]) == (422, pointer)


async def test_a_schedule_that_is_hard_to_compute_stops_nobody_else(door: Door) -> None:
    """Other requests are answered while it is looked for, and it has an end."""
    hard = {"specs": [{"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO;BYHOUR=3;INTERVAL=7",
                       "dtstart": "1980-02-29T00:00:00"}] * 16,
            "exclude": [{"rrule": "FREQ=DAILY;BYHOUR=3", "dtstart": "1980-02-29T00:00:00"}] * 16}  # fmt: skip
    asking = asyncio.create_task(door.call("POST", "/schedules/preview", json={"schedule": hard, "count": 100}))
    longest = 0.0
    while not asking.done():
        began = time.monotonic()
        assert (await door.call("GET", "/healthz"))[0] == 200
        longest = max(longest, time.monotonic() - began)
        await asyncio.sleep(0.001)
    status, _, _ = await asking
    assert status in (200, 422)
    assert longest < 1


async def test_scopes_bound_changes_too(door: Door) -> None:
    timer = await door.create()
    path = f"/timers/{timer['id']}"
    reader = {"X-API-Key": "mnt_only_reads"}
    for method, place, asked in (
        ("PATCH", path, {"name": "x"}), ("POST", f"{path}/pause", {}), ("POST", f"{path}/resume", {}),
        ("POST", f"{path}/reschedule", {"duration": "1h"}), ("POST", f"{path}/fire", {}),
        ("PUT", "/timers/by-name/x", {"requestedBy": "a", "duration": "1h"}),
    ):  # fmt: skip
        assert (await door.call(method, place, json=asked, headers=reader))[0] == 403
        assert (await door.call(method, place, json=asked, headers={"x-tenant-id": None}))[0] == 400
        if method != "PUT":
            other = {"x-tenant-id": door.tenant + "x"}
            assert (await door.call(method, place, json=asked, headers=other))[0] == 404
            assert (await door.call(method, place.replace(timer["id"], "nope"), json=asked))[0] == 404
    assert (await door.call("GET", path))[1] == timer


# ---- keys and tenants ----


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": None},
        {"X-API-Key": ""},
        {"X-API-Key": "mnt_example"},
        {"X-API-Key": None, "Authorization": "Basic bW50X2FsbF9vZl90aGVt"},
        {"X-API-Key": None, "Authorization": "Bearer"},
        {"X-API-Key": None, "Authorization": "Bearer wrong"},
    ],
)
async def test_without_a_known_key_nothing_is_shown(door: Door, headers: dict[str, str | None]) -> None:
    status, problem, answered = await door.call("GET", "/timers", headers=headers)
    assert status == 401
    assert answered["WWW-Authenticate"].startswith("Bearer")
    assert "mnt_" not in str(problem)


async def test_a_bearer_token_is_a_key(door: Door) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"X-API-Key": None, "Authorization": f"{scheme} mnt_all_of_them"}
        assert (await door.call("GET", "/timers", headers=headers))[0] == 200


async def test_scopes_bound_what_a_key_may_do(door: Door) -> None:
    new = {"requestedBy": "a", "duration": "1h"}
    assert (await door.call("POST", "/timers", json=new, headers={"X-API-Key": "mnt_only_reads"}))[0] == 403
    assert (await door.call("GET", "/timers", headers={"X-API-Key": "mnt_only_writes"}))[0] == 403
    assert (await door.call("POST", "/timers", json=new, headers={"X-API-Key": "mnt_only_writes"}))[0] == 201


@pytest.mark.parametrize(
    ("key", "body", "query", "header", "status"),
    [
        ("mnt_all_of_them", None, "", None, 400),
        ("mnt_all_of_them", "acme", "", None, 201),
        ("mnt_all_of_them", None, "?tenantId=acme", None, 201),
        ("mnt_all_of_them", "acme", "?tenantId=acme", "acme", 201),
        ("mnt_all_of_them", "acme", "?tenantId=beta", None, 400),
        ("mnt_all_of_them", "acme", "", "beta", 400),
        ("mnt_all_of_them", None, "?tenantId=beta", "acme", 400),
        ("mnt_one_tenant", None, "", None, 201),
        ("mnt_one_tenant", "beta", "", None, 403),
        ("mnt_two_tenants", None, "", None, 400),
        ("mnt_two_tenants", None, "", "beta", 201),
        ("mnt_two_tenants", None, "", "gamma", 403),
        ("mnt_all_of_them", "not a tenant", "", None, 422),
        ("mnt_all_of_them", None, "?tenantId=a%0A", None, 422),
        ("mnt_all_of_them", "x" * 129, "", None, 422),
    ],
)
async def test_the_tenant_is_named_once_or_not_at_all(
    door: Door, key: str, body: str | None, query: str, header: str | None, status: int
) -> None:
    new = {"requestedBy": "a", "duration": "1h"} | ({"tenantId": body} if body else {})
    headers = {"X-API-Key": key, "x-tenant-id": header}
    found, problem, _ = await door.call("POST", f"/timers{query}", json=new, headers=headers)
    assert found == status, problem
    if (body, query, header, status) == (None, "", None, 400):
        assert "x-tenant-id" in problem["detail"]


@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\tb", "ü".encode(), b"a b", b"a\xc2\x80"])
async def test_odd_bytes_in_headers_are_refused(door: Door, value: bytes) -> None:
    status, answer = await raw(door, "GET /timers HTTP/1.1", b"x-tenant-id: " + value + b"\r\n")
    assert 400 <= status < 500, answer
    body = b'{"requestedBy":"a","duration":"1h"}'
    sent = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    status, answer = await raw(door, "POST /timers HTTP/1.1", sent + b"Idempotency-Key: " + value + b"\r\n", body)
    assert status in (201, 400), answer
    status, _ = await raw(door, "POST /timers HTTP/1.1", sent + b"traceparent: " + value + b"\r\n", body)
    assert status == 201


async def test_one_tenant_sees_nothing_of_another(door: Door) -> None:
    timer = await door.create()
    other = {"x-tenant-id": "somebody-else"}
    for path in ("", "/firings", "/firings/1"):
        assert (await door.call("GET", f"/timers/{timer['id']}{path}", headers=other))[0] == 404
    cancel = {"requestedBy": "x"}
    assert (await door.call("POST", f"/timers/{timer['id']}/cancel", json=cancel, headers=other))[0] == 404
    assert (await door.call("GET", "/timers", headers=other))[1]["items"] == []


# ---- bodies and their limits ----


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('Application/JSON;charset="UTF-8"', 201),
        ("application/merge-patch+json", 201),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_the_content_type_is_json(door: Door, media: str, status: int) -> None:
    body = b'{"requestedBy":"a","duration":"1h"}'
    assert (await door.call("POST", "/timers", data=body, headers={"Content-Type": media}))[0] == status


async def test_a_compressed_body_is_refused(door: Door) -> None:
    sent = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await door.call("POST", "/timers", data=b"\x1f\x8b", headers=sent))[0] == 415


async def test_a_body_of_256_kib_is_the_largest(door: Door) -> None:
    new = b'{"requestedBy":"a","duration":"1h"}'
    sent = {"Content-Type": "application/json"}
    limit = 256 * 1024
    assert (await door.call("POST", "/timers", data=new.ljust(limit), headers=sent))[0] == 201
    for size in (limit + 1, 3 * limit, 40 * 1024 * 1024):
        status, problem, _ = await door.call("POST", "/timers", data=new.ljust(size), headers=sent)
        assert (status, problem["type"]) == (413, "urn:minoots:problem:body-too-large")
    item = b'{"requestedBy":"i","items":[{"duration":"1h"}]}'
    assert (await door.call("POST", "/timers/batch", data=item.ljust(limit * 4), headers=sent))[0] == 201
    assert (await door.call("POST", "/timers/batch", data=item.ljust((32 << 20) + 1), headers=sent))[0] == 413


async def test_a_chunked_body_is_measured_as_it_comes(door: Door) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        yield b'{"requestedBy":"a","duration":"1h"'
        for _ in range(count):
            yield b" " * 1024
        yield b"}"

    sent = {"Content-Type": "application/json"}
    assert (await door.call("POST", "/timers", data=chunks(200), headers=sent))[0] == 201
    assert (await door.call("POST", "/timers", data=chunks(300), headers=sent))[0] == 413


async def test_an_endless_body_is_answered(door: Door) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(
        b"POST /timers HTTP/1.1\r\nHost: x\r\nX-API-Key: mnt_all_of_them\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )

    async def pour() -> None:
        while True:
            writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    pouring = asyncio.create_task(pour())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n")
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    writer.close()
    assert b"413" in head


async def test_a_body_that_stops_halfway_has_a_deadline(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", -0.8)
    sent = b"Content-Type: application/json\r\nContent-Length: 100\r\n"
    status, answer = await raw(door, "POST /timers HTTP/1.1", sent, b'{"requested')
    assert status == 400
    assert b"in time" in answer


async def test_a_get_with_a_body_is_a_get(door: Door) -> None:
    assert (await door.call("GET", "/timers", data=b"{{{", headers={"Content-Type": "application/json"}))[0] == 200


# ---- the rest of the door ----


async def test_what_is_not_there_is_a_problem(door: Door) -> None:
    for path in ("/", "/nope", "/timers/x/y/z", "/%00", "/%FF"):
        status, answer = await raw(door, f"GET {path} HTTP/1.1")
        assert status == 404
        assert b"urn:minoots:problem:route-not-found" in answer
    status, _, headers = await door.call("DELETE", "/timers")
    assert status == 405
    assert {"GET", "POST"} <= {method.strip() for method in headers["Allow"].split(",")}
    assert (await door.call("GET", "/timers", headers={"Host": "b^d"}))[0] == 400
    for path, allowed in (("/timers", "GET, HEAD, OPTIONS, POST"), ("/timers/batch", "OPTIONS, POST")):
        async with door.http.options(door.url + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (204, allowed)


async def test_a_head_is_a_get_without_its_body(door: Door) -> None:
    for path in ("/healthz", "/timers"):
        status, answer = await raw(door, f"HEAD {path} HTTP/1.1")
        assert status == 200
        assert answer.endswith(b"\r\n\r\n")


async def test_health_needs_no_key(door: Door) -> None:
    nobody = {"X-API-Key": None, "x-tenant-id": None}
    assert (await door.call("GET", "/healthz", headers=nobody))[:2] == (200, {"status": "ok"})
    assert (await door.call("GET", "/readyz", headers=nobody))[:2] == (200, {"status": "ready"})
    door.switch.missing = ["the schema is at revision 0003; run minoots migrate"]
    status, problem, headers = await door.call("GET", "/readyz", headers=nobody)
    assert (status, problem["type"]) == (503, "urn:minoots:problem:not-ready")
    assert "minoots migrate" in problem["detail"]
    assert headers["Retry-After"]


async def test_metrics_name_routes_and_no_tenant(door: Door) -> None:
    timer = await door.create()
    await door.call("GET", f"/timers/{timer['id']}")
    async with door.http.get(f"{door.url}/metrics") as answer:
        text = await answer.text()
    assert 'minoots_http_requests_total{method="POST",route="/timers",status="201"} 1.0' in text
    assert 'minoots_http_request_seconds_count{method="GET",route="/timers/{timer_id}",status="200"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    for secret in (door.tenant, timer["id"], "mnt_"):
        assert secret not in text


async def test_the_documentation_is_served(door: Door) -> None:
    async with door.http.get(f"{door.url}/docs") as answer:
        assert answer.content_type == "text/html"
        assert "curl -X POST" in await answer.text()
    status, document, _ = await door.call("GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")


async def test_an_unexpected_error_tells_the_caller_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret-4711")

    monkeypatch.setattr(Timers, "get", fail)
    status, problem, _ = await door.call("GET", f"/timers/{uuid.uuid4()}")
    assert (status, problem["type"]) == (500, "urn:minoots:problem:internal-error")
    assert "4711" not in str(problem)
    assert "ZeroDivision" not in str(problem)


async def test_without_a_database_the_answer_is_503() -> None:
    port = free_port()
    stop = asyncio.Event()
    async with Database(StoreSettings("postgresql://nobody@127.0.0.1:1/none", "minoots", 2, True)) as database:
        app = create_app(Timers(database), TimerChanges(database), load_keys("development", None, None), Switch([]))
        serving = asyncio.create_task(serve_rest(app, Address("127.0.0.1", port), stop))
        await until_open(port)
        headers = {"X-API-Key": "mnt_example", "x-tenant-id": "demo"}
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.get(f"http://127.0.0.1:{port}/timers") as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"]
                assert (await answer.json(content_type=None))["type"] == "urn:minoots:problem:store-unavailable"
            async with http.get(f"http://127.0.0.1:{port}/healthz") as answer:
                assert answer.status == 200
        stop.set()
        await serving


async def test_the_curl_of_the_prototype_works_as_typed(door: Door) -> None:
    typed = """
       curl -s -X POST http://localhost:4000/timers \\
         -H "Content-Type: application/json" \\
         -H "X-API-Key: mnt_all_of_them" \\
         -d '{
           "tenantId": "demo",
           "requestedBy": "cli",
           "name": "coffee-break",
           "duration": "30s",
           "metadata": {"note": "brew beans"}
         }'
    """
    command = typed.replace("localhost:4000", f"localhost:{door.port}")
    ran = await asyncio.to_thread(subprocess.run, command, shell=True, capture_output=True, text=True, timeout=20)
    assert '"status":"scheduled"' in ran.stdout, ran


# ---- the server ----


async def test_a_port_in_use_is_said_in_a_sentence(door: Door) -> None:
    with pytest.raises(ConfigError, match=r"already in use.*MINOOTS_API_ADDRESS"):
        await serve_rest(None, Address("127.0.0.1", door.port), asyncio.Event())  # type: ignore[arg-type]


async def test_a_stop_lets_a_request_end(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = await door.create()
    asked = asyncio.Event()
    show = Timers.get

    async def get_slowly(self: Timers, tenant: str, timer_id: uuid.UUID) -> Any:
        asked.set()
        await asyncio.sleep(0.3)
        return await show(self, tenant, timer_id)

    monkeypatch.setattr(Timers, "get", get_slowly)
    under_way = asyncio.create_task(door.call("GET", f"/timers/{timer['id']}"))
    await asked.wait()
    door.stop.set()
    assert (await under_way)[0] == 200
    async with asyncio.timeout(2):
        await door.serving
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's choice
        await asyncio.open_connection("127.0.0.1", door.port)


async def test_a_stop_does_not_wait_for_ever(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"POST /timers HTTP/1.1\r\nHost: x\r\nX-API-Key: mnt_all_of_them\r\nContent-Length: 9\r\n")
    writer.write(b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
    _, half = await asyncio.open_connection("127.0.0.1", door.port)
    half.write(b"GET /timers HTTP/1.1\r\nHost:")
    assert b"100" in await reader.readuntil(b"\r\n\r\n")  # the body is waited for
    door.stop.set()
    async with asyncio.timeout(3):
        await door.serving
        await reader.read()
    writer.close()
    half.close()
