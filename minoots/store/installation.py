"""Facts about the installation: its revision, whether events are on, its tenants, its nodes, its clock."""

from datetime import datetime

from minoots.store.database import Connection, Database


async def current_revision(db: Database, connection: Connection) -> str | None:
    """The revision the schema is at; None when it was never migrated."""
    known = await connection.fetchval("select to_regclass($1) is not null", f'"{db.schema}".alembic_version')
    if not known:
        return None
    revision: str | None = await connection.fetchval(f'select version_num from "{db.schema}".alembic_version')  # noqa: S608 - the schema's name is checked in settings
    return revision


async def is_clock_replaced(db: Database, connection: Connection) -> bool:
    """Whether somebody replaced the body of `minoots.now()`, to move time."""
    body: str = await connection.fetchval(
        """select coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) from pg_proc p
             join pg_namespace n on n.oid = p.pronamespace where n.nspname = $1 and p.proname = 'now'""",
        db.schema,
    )
    return "".join(body.split()).lower() not in {"returnstatement_timestamp()", "selectstatement_timestamp()"}


async def current_instant(db: Database, connection: Connection) -> datetime:
    """The database's now, by which everything is due."""
    now: datetime = await connection.fetchval(db.sql("select minoots.now()"))
    return now


async def are_events_on(db: Database, connection: Connection) -> bool:
    """Whether lifecycle events are written."""
    on: bool = await connection.fetchval(db.sql("select events from minoots.installation"))
    return on


async def switch_events(db: Database, connection: Connection, on: bool) -> None:
    """Turn lifecycle events on or off for the whole installation; what is in the outbox stays."""
    await connection.execute(db.sql("update minoots.installation set events = $1"), on)


async def remember_tenant(db: Database, connection: Connection, tenant_id: str) -> None:
    """Note a tenant that came through a door."""
    await connection.execute(
        db.sql("insert into minoots.tenants (tenant_id) values ($1) on conflict do nothing"), tenant_id
    )


async def beat(db: Database, connection: Connection, node: str, role: str, version: str) -> None:
    """Say that this process is there; forget those that have been silent for a day."""
    await connection.execute(
        db.sql(
            """insert into minoots.nodes as n (node, role, version) values ($1, $2, $3)
               on conflict (node, role) do update set last_seen_at = minoots.now(), version = excluded.version"""
        ),
        node,
        role,
        version,
    )
    await connection.execute(db.sql("delete from minoots.nodes where last_seen_at < minoots.now() - interval '1 day'"))
