"""Whoever looks at the schema with psql is told what is what."""

from tests.support.timers import Sql

TABLES_AND_COLUMNS = """
select c.relname || coalesce('.' || a.attname, '') as what,
       case when a.attname is null then obj_description(c.oid, 'pg_class')
            else col_description(c.oid, a.attnum) end as said
  from pg_class c
  left join lateral (select attname, attnum from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped
                      union all select null, null) a on true
 where c.relnamespace = 'minoots'::regnamespace and c.relkind in ('r', 'p')
"""
VIEWS = """
select relname as what, obj_description(oid, 'pg_class') as said from pg_class
 where relnamespace = 'minoots'::regnamespace and relkind in ('v', 'm')
"""
FUNCTIONS = """
select proname as what, obj_description(oid, 'pg_proc') as said from pg_proc
 where pronamespace = 'minoots'::regnamespace
"""
DOMAINS = """
select typname as what, obj_description(oid, 'pg_type') as said from pg_type
 where typnamespace = 'minoots'::regnamespace and typtype = 'd'
"""
# design.md, section 3: "SQL"; api_keys comes with the issue that needs it.
TABLES = {"timers", "firings", "deliveries", "attempts", "outbox", "tenants", "nodes", "installation", "outbox_shards"}


async def silent(sql: Sql, query: str) -> list[str]:
    return sorted(row["what"] for row in await sql.fetch(query) if not (row["said"] or "").strip())


async def test_every_table_and_column_says_what_it_is(sql: Sql) -> None:
    found = {row["what"] for row in await sql.fetch(TABLES_AND_COLUMNS)}
    assert found >= TABLES
    assert "timers.due_at" in found
    assert await silent(sql, TABLES_AND_COLUMNS) == []


async def test_every_view_says_what_it_is(sql: Sql) -> None:
    found = {row["what"] for row in await sql.fetch(VIEWS)}
    assert found == {"timer_overview", "due_soon", "dead_letters", "lateness"}
    assert await silent(sql, VIEWS) == []


async def test_every_function_says_what_it_does(sql: Sql) -> None:
    found = {row["what"] for row in await sql.fetch(FUNCTIONS)}
    assert found >= {"schedule_timer", "cancel_timer", "now", "timer_json"}
    assert await silent(sql, FUNCTIONS) == []
    assert await silent(sql, DOMAINS) == []


async def test_a_comment_is_a_sentence_or_a_word_that_ends(sql: Sql) -> None:
    said = [row["said"] for query in (TABLES_AND_COLUMNS, VIEWS, FUNCTIONS) for row in await sql.fetch(query)]
    assert [text for text in said if not text.endswith((".", "…"))] == []
