"""What several tests of the store stand on."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.timers import Sql, count

# What a new timer writes to.
WRITTEN = ("timers", "outbox", "tenants", "idempotency_keys")


@pytest.fixture
async def untouched(module_database_url: str) -> AsyncIterator[Sql]:
    """One database for all refusals, since they leave nothing; that they do is looked at after each."""
    connection = await asyncpg.connect(module_database_url)
    yield connection
    assert [await count(connection, "true", table) for table in WRITTEN] == [0, 0, 0, 0]
    await connection.close()
