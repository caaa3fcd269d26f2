"""A clock that stands still until it is moved: the body of minoots.now() is replaced, as a development server may."""

from datetime import datetime

from tests.support.timers import Sql

_NOW = "create or replace function minoots.now() returns timestamptz language sql stable parallel safe return {body}"


async def set_clock(sql: Sql, instant: datetime) -> None:
    """It is this instant now, for every connection."""
    await sql.execute(_NOW.format(body=f"timestamptz '{instant.isoformat()}'"))


async def release_clock(sql: Sql) -> None:
    """It runs again."""
    await sql.execute(_NOW.format(body="statement_timestamp()"))
