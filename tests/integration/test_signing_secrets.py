"""Signing secrets at the doors: made and shown once, rotated with an overlap, ended, and nobody else's."""

import asyncio
import base64
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import aiohttp
import asyncpg
import grpc.aio
import pytest

from minoots.access.keyring import Keyring
from minoots.access.keys import load_keys
from minoots.domain.signing import context_of, read_secret, write_secret
from minoots.embedded.ports import free_port
from minoots.rest.app import create_app
from minoots.rest.server import serve_rest
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.server import grpc_server
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address
from minoots.store.database import Database
from minoots.wiring import further_routes, further_verbs
from tests.support.grpc_client import GrpcClient, details, refused

KEYS = """[
    {"key": "mnt_all_of_them", "userId": "ann"},
    {"key": "mnt_one_tenant", "userId": "bob", "tenants": ["acme"]},
    {"key": "mnt_of_beta", "userId": "cy", "tenants": ["beta"]},
    {"key": "mnt_sees_secrets", "userId": "dee", "scopes": ["secrets:read"]},
    {"key": "mnt_only_timers", "userId": "eve", "scopes": ["timers:read", "timers:write"]}
]"""
KEYRING = Keyring([b"k" * 32])


class Ready:
    async def problems(self) -> list[str]:
        return []


@dataclass
class Rest:
    """The served door, with a key for everything and a tenant of this test's own."""

    url: str
    tenant: str
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str = "", key: str = "mnt_all_of_them", **given: Any) -> tuple[int, Any]:
        headers = {"X-API-Key": key} | ({"x-tenant-id": self.tenant} if key == "mnt_all_of_them" else {})
        async with self.http.request(
            method, f"{self.url}/signing-secrets{path}", headers=headers | given.pop("headers", {}), **given
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def create(self, **fields: Any) -> Any:
        status, made = await self.call("POST", json={"requestedBy": "ann"} | fields)
        assert status == 201, made
        return made

    async def list(self) -> list[Any]:
        status, page = await self.call("GET")
        assert status == 200, page
        return page["items"]


@pytest.fixture
async def rest(database: Database) -> AsyncIterator[Rest]:
    port, stop = free_port(), asyncio.Event()
    keys = load_keys("development", None, KEYS)
    further = further_routes(database, KEYRING, keys)
    app = create_app(Timers(database), TimerChanges(database), keys, Ready(), further=further)
    serving = asyncio.create_task(serve_rest(app, Address("127.0.0.1", port), stop))
    async with aiohttp.ClientSession() as http:
        async with asyncio.timeout(20):
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{port}/healthz")
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.02)
        yield Rest(f"http://127.0.0.1:{port}", f"t{uuid.uuid4().hex[:10]}", http)
    stop.set()
    await serving


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# ---- making and showing ----


async def test_a_secret_is_shown_once_and_stored_wrapped(rest: Rest, sql: asyncpg.Connection) -> None:
    made = await rest.create()
    assert len(read_secret(made["secret"])) == 32
    assert made["tenantId"] == rest.tenant
    assert made["createdBy"] == "ann"
    assert made["destination"] is made["expiresAt"] is None
    assert abs(at(made["createdAt"]) - datetime.now(UTC)) < timedelta(minutes=1)
    without = {name: value for name, value in made.items() if name != "secret"}
    assert await rest.list() == [without]
    row = await sql.fetchrow("select * from minoots.signing_secrets")
    assert row is not None
    assert read_secret(made["secret"]) not in row["wrapped"]
    assert made["secret"].removeprefix("whsec_") not in str(dict(row))
    assert str(row["secret_id"]) == made["id"]


async def test_a_secret_of_ones_own_comes_back_as_it_was_given(rest: Rest) -> None:
    given = write_secret(os.urandom(24))
    made = await rest.create(secret=given, destination="https://Example.com:443/")
    assert made["secret"] == given
    assert made["destination"] == "https://example.com"
    again, problem = await rest.call(
        "POST", json={"requestedBy": "ann", "secret": given, "destination": "https://example.com"}
    )
    assert (again, problem["type"]) == (409, "urn:minoots:problem:signing-secret-conflict")
    assert given.removeprefix("whsec_") not in json.dumps(problem)
    assert await rest.create(secret=given, destination="https://example.org")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"secret": "whsec_c2hvcnQ="}, "/secret"),
        ({"secret": "not a secret, but private all the same"}, "/secret"),
        ({"secret": 5}, "/secret"),
        ({"destination": "https://example.com/hooks"}, "/destination"),
        ({"destination": "https://example.com?a"}, "/destination"),
        ({"destination": "example.com"}, "/destination"),
        ({"destination": "ftp://example.com"}, "/destination"),
        ({"destination": "https://me:pw@example.com"}, "/destination"),
        ({"destination": "https://example.com:99999"}, "/destination"),
        ({"destination": ""}, "/destination"),
        ({"overlap": "soon"}, "/overlap"),
        ({"overlap": "999d"}, "/overlap"),
        ({"requestedBy": ""}, "/requestedBy"),
        ({"requestedBy": None}, "/requestedBy"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_what_breaks_a_rule_has_its_pointer_and_leaves_nothing(
    rest: Rest, fields: dict[str, Any], pointer: str
) -> None:
    status, problem = await rest.call("POST", json={"requestedBy": "ann"} | fields)
    assert (status, problem["pointer"]) == (422, pointer), problem
    if isinstance(fields.get("secret"), str):
        assert fields["secret"].removeprefix("whsec_") not in json.dumps(problem)
    assert await rest.list() == []


# ---- rotation, and the end ----


async def test_a_new_secret_lets_the_former_end_after_the_overlap(rest: Rest) -> None:
    first = await rest.create(destination="https://example.com")
    tenants = await rest.create()
    second = await rest.create(destination="https://example.com", overlap="1h")
    listed = {item["id"]: item for item in await rest.list()}
    assert list(listed) == [second["id"], tenants["id"], first["id"]]
    assert listed[second["id"]]["expiresAt"] is listed[tenants["id"]]["expiresAt"] is None
    left = at(listed[first["id"]]["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=58) < left < timedelta(minutes=61)
    await rest.create(destination="https://example.com", overlap=0)
    third = await rest.list()
    assert second["id"] not in [item["id"] for item in third], "without an overlap the former is gone at once"
    assert first["id"] in [item["id"] for item in third], "what was promised to the one before it stays"


async def test_the_overlap_is_a_day_unless_it_is_said(rest: Rest) -> None:
    first = await rest.create()
    await rest.create()
    ends = next(item["expiresAt"] for item in await rest.list() if item["id"] == first["id"])
    assert timedelta(hours=23, minutes=58) < at(ends) - datetime.now(UTC) < timedelta(hours=24, minutes=1)


async def test_at_most_five_sign_for_one_destination(rest: Rest) -> None:
    for _ in range(5):
        made = await rest.create()
    status, problem = await rest.call("POST", json={"requestedBy": "ann"})
    assert (status, problem["type"]) == (409, "urn:minoots:problem:signing-secret-conflict")
    assert await rest.create(destination="https://example.com")
    assert await rest.create(overlap=0)
    assert made["id"] not in [item["id"] for item in await rest.list()]


async def test_two_rotations_at_once_come_one_after_the_other(rest: Rest) -> None:
    await asyncio.gather(*(rest.create(destination="https://example.com") for _ in range(4)))
    items = await rest.list()
    assert len(items) == 4
    assert sum(item["expiresAt"] is None for item in items) == 1


async def test_a_revoked_secret_is_gone(rest: Rest) -> None:
    made = await rest.create()
    status, ended = await rest.call("DELETE", f"/{made['id']}")
    assert status == 200
    assert ended["expiresAt"] is not None
    assert "secret" not in ended
    assert await rest.list() == []
    for path in (f"/{made['id']}", f"/{uuid.uuid4()}", "/nonsense"):
        status, problem = await rest.call("DELETE", path)
        assert (status, problem["type"]) == (404, "urn:minoots:problem:signing-secret-not-found")


async def test_a_list_has_pages(rest: Rest) -> None:
    made = [(await rest.create(destination=f"https://{n}.example.com"))["id"] for n in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        status, page = await rest.call("GET", f"?limit=2{cursor}")
        assert status == 200
        found += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert found == made[::-1]


# ---- who may ----


async def test_nobody_sees_or_ends_the_secret_of_another_tenant(rest: Rest) -> None:
    status, made = await rest.call("POST", key="mnt_one_tenant", json={"requestedBy": "bob"})
    assert (status, made["tenantId"]) == (201, "acme")
    for key in ("mnt_of_beta", "mnt_all_of_them"):
        assert (await rest.call("GET", key=key))[1]["items"] == []
        assert (await rest.call("DELETE", f"/{made['id']}", key=key))[0] == 404
        assert (await rest.call("GET", "?tenantId=acme", key="mnt_of_beta"))[0] == 403
    assert (await rest.call("POST", key="mnt_of_beta", json={"tenantId": "acme", "requestedBy": "cy"}))[0] == 403
    assert [item["id"] for item in (await rest.call("GET", key="mnt_one_tenant"))[1]["items"]] == [made["id"]]


async def test_secrets_have_scopes_of_their_own(rest: Rest) -> None:
    body = {"requestedBy": "x", "tenantId": rest.tenant}
    for key in ("mnt_only_timers", "mnt_sees_secrets"):
        assert (await rest.call("POST", key=key, json=body))[0] == 403
        assert (await rest.call("DELETE", f"/{uuid.uuid4()}?tenantId={rest.tenant}", key=key))[0] == 403
    assert (await rest.call("GET", f"?tenantId={rest.tenant}", key="mnt_only_timers"))[0] == 403
    assert (await rest.call("GET", f"?tenantId={rest.tenant}", key="mnt_sees_secrets"))[0] == 200
    async with rest.http.get(f"{rest.url}/signing-secrets") as answer:
        assert answer.status == 401


# ---- gRPC ----


async def test_the_other_door_has_the_same_secrets(rest: Rest, database: Database) -> None:
    address = Address("127.0.0.1", free_port())
    key = [("x-api-key", "mnt_all_of_them")]
    keys = load_keys("development", None, KEYS)
    further = further_verbs(database, KEYRING)
    async with (
        grpc_server(Timers(database), TimerChanges(database), keys, None, address, further=further),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        rpc = GrpcClient(address, channel, rest.tenant)
        given = write_secret(os.urandom(32))
        made = await rpc.CreateSigningSecret(
            pb.SigningSecretCreateRequest(
                tenant_id=rpc.tenant, requested_by="ann", destination="https://example.com", secret=given
            ),
            metadata=key,
        )
        assert (made.secret, made.destination, made.created_by) == (given, "https://example.com", "ann")
        assert not made.HasField("expires_at")
        again = await rest.create(destination="https://example.com", overlap="2h")
        request = pb.SigningSecretListRequest(tenant_id=rpc.tenant, page_size=1)
        page = await rpc.ListSigningSecrets(request, metadata=key)
        assert [item.id for item in page.signing_secrets] == [again["id"]]
        request.page_token = page.next_page_token
        (former,) = (await rpc.ListSigningSecrets(request, metadata=key)).signing_secrets
        assert former.id == made.id
        assert not former.HasField("secret")
        assert former.HasField("expires_at")
        ended = await rpc.DeleteSigningSecret(
            pb.SigningSecretDeleteRequest(tenant_id=rpc.tenant, secret_id=made.id), metadata=key
        )
        assert (ended.id, ended.secret) == (made.id, "")
        assert [item["id"] for item in await rest.list()] == [again["id"]]
        gone = await refused(
            rpc.DeleteSigningSecret(
                pb.SigningSecretDeleteRequest(tenant_id=rpc.tenant, secret_id=made.id), metadata=key
            )
        )
        assert gone.code() is grpc.StatusCode.NOT_FOUND
        wrong = await refused(
            rpc.CreateSigningSecret(
                pb.SigningSecretCreateRequest(tenant_id=rpc.tenant, requested_by="", secret="whsec_x", overlap_ms=-1),
                metadata=key,
            )
        )
        assert [pointer for pointer, _ in details(wrong)[1]] == ["/requestedBy"]


# ---- the command line ----


async def test_the_command_line_makes_rotates_and_revokes(rest: Rest) -> None:
    async def minoots(*words: str, stdin: str = "") -> tuple[int, str, str]:
        env = {"MINOOTS_API_URL": rest.url, "MINOOTS_API_KEY": "mnt_all_of_them", "MINOOTS_TENANT": rest.tenant}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "minoots",
            "secret",
            *words,
            env={"PATH": os.environ["PATH"], **env},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return process.returncode or 0, out.decode(), err.decode()

    assert "unsigned" in (await minoots("list"))[1]
    code, out, err = await minoots("create", "https://example.com")
    assert (code, len(read_secret(out.strip()))) == (0, 32)
    assert "only time" in err
    assert out.strip() not in err
    given = write_secret(os.urandom(32))
    code, out, _ = await minoots("create", "--secret", "-", "--overlap", "1h", "--json", stdin=given + "\n")
    assert (code, json.loads(out)["secret"]) == (0, given)
    code, out, _ = await minoots("list")
    assert "https://example.com" in out
    assert given not in out
    ids = [item["id"] for item in json.loads((await minoots("list", "--json"))[1])["items"]]
    assert len(ids) == 2
    for secret_id in ids:
        assert (await minoots("revoke", secret_id))[0] == 0
    assert (await minoots("revoke", ids[0]))[0] == 3
    assert (await minoots("create", "https://example.com/path"))[0] == 4
    assert await rest.list() == []


async def test_the_operator_changes_the_key(rest: Rest, database_url: str, sql: asyncpg.Connection) -> None:
    async def rewrap(*keys: bytes) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "minoots",
            "secret",
            "rewrap",
            env={
                "PATH": os.environ["PATH"],
                "MINOOTS_DATABASE_URL": database_url,
                "MINOOTS_SECRETS_KEY": ",".join(base64.b64encode(key).decode() for key in keys),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode()

    made = await rest.create()
    assert await rewrap() == (2, ANY)
    code, said = await rewrap(b"n" * 32)
    assert code == 2
    assert "1 cannot be unwrapped" in said
    assert await rewrap(b"n" * 32, b"k" * 32) == (0, "1 wrapped anew\n")
    assert await rewrap(b"n" * 32) == (0, "0 wrapped anew\n")
    wrapped = await sql.fetchval("select wrapped from minoots.signing_secrets")
    context = context_of(rest.tenant, None)
    assert Keyring([b"n" * 32]).unwrap(wrapped, context) == read_secret(made["secret"])
