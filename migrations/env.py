"""Runs the revisions over asyncpg, in one transaction, in the schema that MINOOTS_SCHEMA names."""

import asyncio
import os
from functools import partial
from logging.config import fileConfig

import asyncpg
import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

config = context.config
if config.config_file_name and config.attributes.get("url") is None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def target() -> tuple[str | None, str]:
    """The database and the schema: what `minoots migrate` passed, else the environment."""
    url = config.attributes.get("url") or os.environ.get("MINOOTS_DATABASE_URL") or os.environ.get("DATABASE_URL")
    schema = config.attributes.get("schema") or os.environ.get("MINOOTS_SCHEMA") or "minoots"
    return url, schema


def apply(connection: sa.Connection, schema: str) -> None:
    # Of two processes that migrate at once the second waits, then finds nothing to do. The lock ends with the
    # transaction.
    connection.execute(
        sa.text("select pg_advisory_xact_lock(hashtextextended('minoots.migrate.' || :s, 0))"), {"s": schema}
    )
    # `if not exists` asks for the right to create schemas even where there is nothing to create.
    exists = sa.text("select exists (select from pg_namespace where nspname = :s)")
    if not connection.execute(exists, {"s": schema}).scalar():
        connection.execute(sa.text(f'create schema "{schema}"'))
    context.configure(connection=connection, version_table_schema=schema, transactional_ddl=True)
    context.run_migrations()


async def online(url: str, schema: str) -> None:
    # The URL goes to asyncpg as it is: SQLAlchemy would not know all that may be in it (sslmode, several hosts).
    # Nothing is prepared under a name or kept: migrations pass through PgBouncer too.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=sa.NullPool,
        connect_args={
            "async_creator_fn": partial(asyncpg.connect, url, statement_cache_size=0),
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
        },
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(apply, schema)
    finally:
        await engine.dispose()


url, schema = target()
if context.is_offline_mode():
    # Named, or every % would be written twice.
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        version_table_schema=schema,
    )
    with context.begin_transaction():
        context.execute(f'create schema if not exists "{schema}"')
        context.run_migrations()
elif not url:
    raise SystemExit("set MINOOTS_DATABASE_URL (or DATABASE_URL) to the database to migrate")
else:
    asyncio.run(online(url, schema))
