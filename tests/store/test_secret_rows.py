"""Rows of signing_secrets by plain SQL: what the table itself keeps."""

import asyncpg
import pytest

from minoots.domain.signing import origin_of
from tests.support.timers import Sql

COLUMNS = {"tenant_id": "'demo'", "wrapped": "decode(repeat('01', 65), 'hex')"}


async def insert(sql: Sql, **columns: str) -> None:
    given = COLUMNS | columns
    await sql.execute(f"insert into minoots.signing_secrets ({', '.join(given)}) values ({', '.join(given.values())})")


@pytest.mark.parametrize(
    ("column", "value", "constraint"),
    [
        ("tenant_id", "'a b'", "tenant_id"),
        ("tenant_id", "''", "tenant_id"),
        ("destination", "''", "destination"),
        ("destination", "'example.com'", "destination"),
        ("destination", "'https://Example.com'", "destination"),
        ("destination", "'https://example.com/'", "destination"),
        ("destination", "'https://example.com?x'", "destination"),
        ("destination", "'https://example.com:443'", "destination"),
        ("destination", "'http://example.com:80'", "destination"),
        ("destination", "'https://' || repeat('x', 2048)", "destination"),
        ("wrapped", "''", "wrapped"),
        ("wrapped", "decode(repeat('01', 56), 'hex')", "wrapped"),
        ("wrapped", "decode(repeat('01', 257), 'hex')", "wrapped"),
        ("created_by", "''", "created_by"),
        ("created_by", "repeat('x', 201)", "created_by"),
        ("expires_at", "'infinity'", "instants"),
        ("tenant_until", "'9000-01-01 00:00Z'", "instants"),
        ("created_at", "'9000-01-01 00:00Z'", "instants"),
    ],
)
async def test_a_row_that_could_not_sign_is_refused(sql: Sql, column: str, value: str, constraint: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(sql, **{column: value})
    assert refused.value.constraint_name == f"signing_secrets_{constraint}"


async def test_the_least_row_has_all_it_needs(sql: Sql) -> None:
    await insert(sql)
    row = await sql.fetchrow("select * from minoots.signing_secrets")
    assert row is not None
    assert row["created_by"]
    assert row["created_at"]
    assert row["secret_id"].version == 7
    assert row["destination"] is row["expires_at"] is None


@pytest.mark.parametrize("destination", ["null", "'https://example.com'"])
async def test_of_one_destination_one_is_current(sql: Sql, destination: str) -> None:
    await insert(sql, destination=destination)
    await insert(sql, destination=destination, expires_at="minoots.now() + interval '1 h'")
    await insert(sql, destination=destination, tenant_id="'beta'")
    with pytest.raises(asyncpg.UniqueViolationError, match="signing_secrets_current"):
        await insert(sql, destination=destination)


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://Example.com:443/x?y#z",
        "http://h:80",
        "http://[::1]:8080/",
        "https://h:80?http://h:80",
        "http://h:443/a",
    ],
)
async def test_an_origin_is_written_as_lanes_are(sql: Sql, url: str) -> None:
    lane = await sql.fetchval("select minoots.lane_of('webhook', jsonb_build_object('url', $1::text))", url)
    assert origin_of(url) == lane
    await insert(sql, destination=f"'{lane}'")
