"""What signs when: the destination's secrets before the tenant's, rotation, never unsigned for want of an answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from minoots.access.keyring import Keyring
from minoots.domain.signing import SecretRequest, admit_secret, read_secret, sign
from minoots.orchestrator import signing
from minoots.orchestrator.signing import CannotSign, Signer
from minoots.service.secrets import SigningSecrets
from minoots.settings import StoreSettings
from minoots.store import secrets
from minoots.store.database import Database

KEYRING = Keyring([b"k" * 32])
HERE, THERE = "https://example.com", "https://example.org"


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


async def make(database: Database, tenant: str = "acme", keyring: Keyring = KEYRING, **fields: Any) -> bytes:
    made = await SigningSecrets(database, keyring).create(
        tenant, admit_secret(SecretRequest(requested_by="ann", **fields))
    )
    return read_secret(made.secret)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def signer(database: Database, hands: Hands) -> Signer:
    return Signer(database, KEYRING, hands)


async def signed(signer: Signer, origin: str = HERE, tenant: str = "acme") -> str | None:
    return await signer.sign(tenant, origin, "id_1_a", 1_700_000_000, b"{}")


def by(*secrets: bytes) -> str:
    return sign(secrets, "id_1_a", 1_700_000_000, b"{}")


async def test_without_a_secret_nothing_is_signed(signer: Signer, hands: Hands, database: Database) -> None:
    assert await signed(signer) is None
    made = await make(database)
    assert await signed(signer) is None, "known a moment ago"
    hands.at += signing.FRESH_S
    assert await signed(signer) == by(made)


async def test_a_destinations_secret_comes_before_the_tenants(signer: Signer, database: Database) -> None:
    tenants, own = await make(database), await make(database, destination=HERE + ":443", overlap=0)
    assert await signed(signer) == by(own)
    assert await signed(signer, THERE) == by(tenants)
    assert await signed(signer, HERE, "beta") is None


async def test_a_destinations_first_secret_rotates_the_tenants(
    signer: Signer, hands: Hands, database: Database, sql: asyncpg.Connection
) -> None:
    tenants, own = await make(database), await make(database, destination=HERE)
    assert await signed(signer) == by(own, tenants)
    second = await make(database, destination=HERE)
    hands.at += signing.FRESH_S
    assert await signed(signer) == by(second, own, tenants), "rotated again, and still within the first overlap"
    await sql.execute("update minoots.signing_secrets set tenant_until = minoots.now() where tenant_until is not null")
    hands.at += signing.FRESH_S
    assert await signed(signer) == by(second, own)
    assert await signed(signer, THERE) == by(tenants)
    await make(database, "beta", destination=HERE)
    await make(database, "beta")
    assert (await signed(signer, HERE, "beta") or "").count("v1,") == 1, "there was none to rotate"


async def test_both_sign_until_the_overlap_is_over(
    signer: Signer, hands: Hands, database: Database, sql: asyncpg.Connection
) -> None:
    first = await make(database)
    second = await make(database)
    third = await make(database, overlap="1h")
    assert await signed(signer) == by(third, second, first), "the newest first"
    await sql.execute(
        "update minoots.signing_secrets set expires_at = minoots.now() where expires_at > minoots.now() + interval '2h'"
    )
    hands.at += signing.FRESH_S
    assert await signed(signer) == by(third, second)
    async with database.connection() as connection:
        assert await secrets.prune_secrets(database, connection, 10) == 1
    assert await sql.fetchval("select count(*) from minoots.signing_secrets") == 2


async def test_a_secret_in_anothers_row_signs_nothing(
    signer: Signer, database: Database, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = await make(database)
    await sql.execute("update minoots.signing_secrets set tenant_id = 'beta'")
    with pytest.raises(CannotSign):
        await signed(signer, tenant="beta")
    await make(database, "beta", overlap="1h")
    assert secret.hex() not in capsys.readouterr().out


async def test_what_no_key_unwraps_is_no_reason_to_send_unsigned(
    hands: Hands, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    old = await make(database)
    renewed = Signer(database, Keyring([b"n" * 32]), hands)
    for _ in range(3):
        with pytest.raises(CannotSign, match="MINOOTS_SECRETS_KEY"):
            await signed(renewed)
    assert capsys.readouterr().out.count("signing.cannot_unwrap") == 1
    new = await make(database, keyring=Keyring([b"n" * 32]))
    assert await signed(renewed) == by(new), "with another that can be unwrapped it is signed by that"
    assert await signed(Signer(database, Keyring([b"n" * 32, b"k" * 32]), hands)) == by(new, old)


async def test_many_who_wait_are_answered_by_few_statements(
    hands: Hands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {n: await make(database, f"t{n}", destination=HERE) for n in range(0, 50, 7)}
    asked: list[int] = []
    find = secrets.find_signing

    async def counted(db: Database, connection: Any, wanted: Any) -> Any:
        asked.append(len(wanted))
        return await find(db, connection, wanted)

    monkeypatch.setattr(secrets, "find_signing", counted)
    signer = Signer(database, KEYRING, hands)
    places = [(f"t{n}", origin) for n in range(50) for origin in (HERE, THERE)] * 20
    found = await asyncio.gather(*(signed(signer, origin, tenant) for tenant, origin in places))
    assert asked == [100]
    for (tenant, origin), value in zip(places, found, strict=True):
        secret = own.get(int(tenant[1:])) if origin == HERE else None
        assert value == (by(secret) if secret else None)
    await asyncio.gather(*(signed(signer, origin, tenant) for tenant, origin in places))
    assert asked == [100]


async def test_who_leaves_takes_nothing_from_the_others(signer: Signer, database: Database) -> None:
    made = await make(database)
    waiting = [asyncio.create_task(signed(signer)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [by(made)] * 4


async def test_what_is_remembered_is_bounded(
    signer: Signer, hands: Hands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "REMEMBERED", 10)
    made = await make(database)
    for n in range(30):
        assert await signed(signer, f"https://{n}.example.com") == by(made)
    assert len(signer._known) == 10


@pytest.fixture
async def lost(database_url: str) -> AsyncIterator[Database]:
    """A database whose server is gone."""
    settings = StoreSettings("postgresql://nobody@127.0.0.1:1/none", "minoots", 2, True)
    async with Database(settings) as opened:
        yield opened


async def test_without_postgres_nothing_goes_out(lost: Database, hands: Hands) -> None:
    signer = Signer(lost, KEYRING, hands)
    found = await asyncio.gather(*(signed(signer) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [CannotSign] * 3
    assert "signing secrets" in str(found[0])


async def test_after_wrapping_anew_the_old_key_is_not_needed(
    hands: Hands, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minoots.service.secrets.REWRAP_BATCH", 2)
    made = [await make(database, f"t{n}", destination=HERE if n % 2 else None) for n in range(5)]
    both = SigningSecrets(database, Keyring([b"n" * 32, b"k" * 32]))
    assert await SigningSecrets(database, Keyring([b"n" * 32])).rewrap() == (0, 5)
    assert await both.rewrap() == (5, 0)
    assert await both.rewrap() == (0, 0)
    signer = Signer(database, Keyring([b"n" * 32]), hands)
    assert [await signed(signer, HERE, f"t{n}") for n in range(5)] == [by(secret) for secret in made]
