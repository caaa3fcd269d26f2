"""No webhook reaches an address that is not open: by no spelling, by no answer of a name server, by no redirect.

What stands in for a public address is 127.0.0.2, opened by its network; a canary listens on 127.0.0.1, which is not.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from minoots.domain.outcome import Delivered, Outcome, Rejected, Retry
from minoots.domain.target import Targets, read_networks
from minoots.orchestrator.actions.connect import CheckedResolver
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.actions.webhook import WebhookRunner
from minoots.store.database import Database
from tests.integration.test_orchestrator import attempts_of, delivery_of, ended
from tests.support.life import fire_timers
from tests.support.name_server import NameServer
from tests.support.orchestrating import orchestrating
from tests.support.scripted_receiver import certificate
from tests.support.timers import Sql, bundle, webhook
from tests.support.waiting import eventually

PUBLIC, CANARY = "127.0.0.2", "127.0.0.1"
ONLY_PUBLIC = Targets.of(read_networks(f"{PUBLIC}/32"))
SECRET = b"what only the inside may know"


@dataclass
class Sockets:
    """The receiver and the canary, on one port; what they heard."""

    port: int = 0
    public: list[str] = field(default_factory=list)
    canary: list[str] = field(default_factory=list)

    def url(self, host: str) -> str:
        return f"http://{host}:{self.port}/hook"


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Sockets]:
    """Each connection is closed after its answer, so that every attempt dials."""
    sockets = Sockets()

    def hears(heard: list[str]) -> Any:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(SECRET) + SECRET)
            await writer.drain()
            writer.close()

        return answer

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            public = await asyncio.start_server(hears(sockets.public), PUBLIC, 0)
            sockets.port = public.sockets[0].getsockname()[1]
            try:
                canary = await asyncio.start_server(hears(sockets.canary), [CANARY, "::1"], sockets.port)
            except OSError:
                public.close()
                continue
            await stack.enter_async_context(public)
            await stack.enter_async_context(canary)
            break
        yield sockets


def request(url: str) -> ActionRequest:
    return ActionRequest(
        "demo", "timer", 1, "call", "webhook", json.dumps({"url": url, "timeoutMs": 8_000}), "{}", None
    )


@contextlib.asynccontextmanager
async def sending(
    targets: Targets = ONLY_PUBLIC, answers: dict[str, Sequence[Sequence[str] | None]] | None = None
) -> AsyncIterator[tuple[WebhookRunner, NameServer]]:
    async with NameServer(answers or {}) as names:
        resolver = CheckedResolver(targets, ["127.0.0.1"], names.port)
        async with WebhookRunner(8, targets, resolver, dns_kept_s=0) as webhooks:
            yield webhooks, names


def leaks_nothing(outcome: Outcome) -> bool:
    said = repr(outcome)
    return outcome.answer.excerpt is None and "127." not in said and "::" not in said and "inside" not in said


async def test_of_answers_that_alternate_only_the_open_one_is_ever_dialled() -> None:
    async with listening() as sockets, sending(answers={"rebind.test": [[PUBLIC], [CANARY]]}) as (webhooks, names):
        outcomes = [await webhooks.run(request(sockets.url("rebind.test"))) for _ in range(20)]
        together = await asyncio.gather(*(webhooks.run(request(sockets.url("rebind.test"))) for _ in range(20)))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Retry] * 10
    refused = [outcome for outcome in [*outcomes, *together] if isinstance(outcome, Retry)]
    assert len(refused) == 20
    assert all(leaks_nothing(outcome) for outcome in refused)
    assert all("not open to webhooks" in outcome.error for outcome in refused)
    assert names.asked["rebind.test"] == 40, "one look-up an attempt: what was checked is dialled"
    assert sockets.canary == []
    assert len(sockets.public) == 20
    assert all(f"Host: rebind.test:{sockets.port}" in heard for heard in sockets.public), "the name stays the host"


@pytest.mark.parametrize(
    "answer",
    [[PUBLIC, CANARY], [CANARY, PUBLIC], [PUBLIC, "::1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254", PUBLIC],
     ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["0.0.0.0"], ["fe80::1"]],
    ids=str,
)  # fmt: skip
async def test_one_forbidden_address_among_the_answers_refuses_them_all(answer: list[str]) -> None:
    async with listening() as sockets, sending(answers={"mixed.test": [answer]}) as (webhooks, _):
        outcome = await webhooks.run(request(sockets.url("mixed.test")))
    assert isinstance(outcome, Retry), "a name may be mended"
    assert outcome.error == "the target is refused: its name has an address that is not open to webhooks"
    assert leaks_nothing(outcome)
    assert sockets.canary == sockets.public == []


@pytest.mark.parametrize(
    "host",
    [CANARY, "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]",
     "[::ffff:7f00:1]", "１２７.0.0.1", "127。0。0。1", "0.0.0.0", "0", "[::]", "[::127.0.0.1]"],
)  # fmt: skip
async def test_no_spelling_of_a_literal_is_dialled(host: str) -> None:
    async with listening() as sockets, sending() as (webhooks, _):
        outcome = await webhooks.run(request(sockets.url(host)))
    assert isinstance(outcome, Rejected)
    assert outcome.error == "the target is refused: its address is not open to webhooks"
    assert sockets.canary == sockets.public == []


async def test_a_literal_that_is_open_is_dialled() -> None:
    async with listening() as sockets, sending() as (webhooks, _):
        assert isinstance(await webhooks.run(request(sockets.url(PUBLIC))), Delivered)


async def test_tls_is_asked_for_by_the_name_and_not_by_the_address(tmp_path: Path) -> None:
    asked: list[str | None] = []
    context = certificate(tmp_path)
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def nobody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(nobody, PUBLIC, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, sending(answers={"secure.test": [[PUBLIC]]}) as (webhooks, _):
        outcome = await webhooks.run(request(f"https://secure.test:{port}/"))
    assert isinstance(outcome, Retry)
    assert outcome.error == "TLS: the certificate is not valid for this host"
    assert asked == ["secure.test"]


async def test_the_last_look_is_at_the_socket() -> None:
    """Whatever goes through the session without the webhook's own look at literals dials nothing forbidden either."""
    async with listening() as sockets, sending() as (webhooks, _):
        with pytest.raises(aiohttp.ClientConnectorError):
            await webhooks.session.get(sockets.url(CANARY))
    assert sockets.canary == []


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as sockets, sending(answers={"some.test": [[PUBLIC]]}) as (webhooks, _):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, sockets.url(CANARY))
        assert isinstance(await webhooks.run(request(sockets.url("some.test"))), Delivered)
    assert sockets.canary == []


async def test_a_name_that_nobody_knows_and_one_that_nobody_answers_for_are_tried_again() -> None:
    async with listening() as sockets, sending(answers={"mute.test": [None]}) as (webhooks, _):
        unknown, mute = await asyncio.gather(
            webhooks.run(request(sockets.url("unknown.test"))), webhooks.run(request(sockets.url("mute.test")))
        )
    assert isinstance(unknown, Retry)
    assert "cannot be resolved" in unknown.error
    assert isinstance(mute, Retry)
    assert "resolved" in mute.error
    assert mute.answer.duration_ms < 8_000


async def test_a_refused_target_is_an_attempt_with_a_reason_and_may_be_mended(database: Database, sql: Sql) -> None:
    """Forbidden at first, and public from the third look on: the policy goes on, and it arrives."""
    names = {"moved.test": [[CANARY], ["10.0.0.1"], [PUBLIC], [PUBLIC]]}
    async with listening() as sockets, NameServer(names) as server:
        resolver = CheckedResolver(ONLY_PUBLIC, ["127.0.0.1"], server.port)
        webhooks = WebhookRunner(8, ONLY_PUBLIC, resolver, dns_kept_s=0)
        async with orchestrating(database, webhooks=webhooks):
            actions = bundle(webhook(sockets.url("moved.test")), backoffInitialMs=20, backoffMaxMs=40)
            (timer,) = await fire_timers(database, sql, actions)
            await eventually(ended(sql), seconds=30)
    attempts = await attempts_of(sql, timer)
    assert [attempt["outcome"] for attempt in attempts] == ["retry", "retry", "delivered"]
    for attempt in attempts[:2]:
        assert attempt["error"] == "the target is refused: its name has an address that is not open to webhooks"
        assert attempt["excerpt"] is None
        assert attempt["status_code"] is None
    assert sockets.canary == []


async def test_a_literal_from_plain_sql_is_refused_for_good(database: Database, sql: Sql) -> None:
    async with listening() as sockets, orchestrating(database, webhooks=WebhookRunner(8, Targets())):
        (timer,) = await fire_timers(database, sql, bundle(webhook(sockets.url(CANARY))))
        await eventually(ended(sql), seconds=30)
    (attempt,) = await attempts_of(sql, timer)
    assert (attempt["outcome"], attempt["excerpt"]) == ("rejected", None)
    delivery = await delivery_of(sql, timer)
    assert (delivery["status"], delivery["dead_reason"]) == ("dead", attempt["error"])
    assert "127." not in attempt["error"]
    assert sockets.canary == []
