"""What a schema of a database is, as something that can be compared."""

import re
from collections.abc import Mapping
from typing import Any

from tests.support.timers import Sql

# Each part of a schema by its name; $1 is the schema's.
_PARTS = {
    "tables": """select relname as name, relkind::text || coalesce(' ' || reloptions::text, '') as shown from pg_class
                  where relnamespace = $1::regnamespace and relkind in ('r', 'v', 'S')""",
    "columns": """select format('%s.%s', c.relname, a.attname) as name,
                         concat_ws(' ', format_type(a.atttypid, a.atttypmod),
                                   case when a.attnotnull then 'not null' end, a.attgenerated::text,
                                   a.attidentity::text, pg_get_expr(d.adbin, d.adrelid)) as shown
                    from pg_attribute a join pg_class c on c.oid = a.attrelid and c.relkind = 'r'
                    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                   where c.relnamespace = $1::regnamespace and a.attnum > 0 and not a.attisdropped""",
    "indexes": """select c.relname as name, pg_get_indexdef(c.oid) as shown from pg_class c
                   where c.relnamespace = $1::regnamespace and c.relkind = 'i'""",
    # Postgres 18 keeps not null as constraints too, with names of its own.
    "constraints": """select format('%s.%s', coalesce(nullif(conrelid, 0)::regclass::text, contypid::regtype::text),
                                    conname) as name, pg_get_constraintdef(oid) as shown
                        from pg_constraint where connamespace = $1::regnamespace and contype <> 'n'""",
    "domains": """select typname as name, format_type(typbasetype, typtypmod) as shown from pg_type
                   where typnamespace = $1::regnamespace and typtype = 'd'""",
    "functions": """select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as shown from pg_proc p
                     where p.pronamespace = $1::regnamespace""",
    "views": """select relname as name, pg_get_viewdef(oid) as shown from pg_class
                 where relnamespace = $1::regnamespace and relkind = 'v'""",
    "triggers": """select t.tgname as name, pg_get_triggerdef(t.oid) as shown from pg_trigger t
                     join pg_class c on c.oid = t.tgrelid
                    where c.relnamespace = $1::regnamespace and not t.tgisinternal""",
    "comments": """select pg_describe_object(classoid, objoid, objsubid) as name, description as shown
                     from pg_description
                    where (classoid, objoid) in (
                          select 'pg_class'::regclass, oid from pg_class where relnamespace = $1::regnamespace
                          union all
                          select 'pg_type'::regclass, oid from pg_type where typnamespace = $1::regnamespace
                          union all
                          select 'pg_proc'::regclass, oid from pg_proc where pronamespace = $1::regnamespace)""",
}

Schema = Mapping[str, Mapping[str, str]]


async def describe(sql: Sql, schema: str = "minoots") -> dict[str, dict[str, str]]:
    """Everything that the migrations make, by part and name, written for the schema `minoots`."""
    quoted = await sql.fetchval("select quote_ident($1)", schema)
    await sql.execute("set search_path = pg_catalog")

    def ours(text: str) -> str:
        # Bodies of functions are kept as they were written, with quotes.
        return re.sub(rf"(?<![\w.])(\"{schema}\"|{re.escape(quoted)})(?=\.)", "minoots", text)

    return {
        part: {ours(row["name"]): ours(row["shown"]) for row in await sql.fetch(query, quoted)}
        for part, query in _PARTS.items()
    }


async def contents(sql: Sql, schema: str = "minoots") -> dict[str, list[Any]]:
    """The rows of every table."""
    tables = await sql.fetch(
        "select relname from pg_class where relnamespace = quote_ident($1)::regnamespace and relkind = 'r' order by 1",
        schema,
    )
    return {
        row["relname"]: [
            dict(one) for one in await sql.fetch(f'select * from "{schema}"."{row["relname"]}" x order by x::text')
        ]
        for row in tables
    }
