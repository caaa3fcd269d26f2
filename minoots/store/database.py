"""The way to Postgres: a pool, transactions, statements for this schema, and driver errors translated once."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.sql.expression import Executable

from minoots.errors import ConfigError, Finding, InvalidTimer, NameTaken, StoreUnavailable
from minoots.settings import StoreSettings

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Connection = Pool = Any
T = TypeVar("T")

# Not after a quote or a word: 'minoots.timer.fired' is a value.
_QUALIFIER = re.compile(r"(?<![\w'./-])minoots\.")
_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]

# What a caller can mend, by the constraint that refused it.
_CONSTRAINTS = {
    "timers_tenant_id": (
        "/tenantId",
        "a tenant has 1 to 128 letters, digits and _ : @ -, and begins with a letter or digit",
    ),
    "timers_name": ("/name", "a name has 1 to 200 characters"),
    "timers_requested_by": ("/requestedBy", "requestedBy has 1 to 200 characters"),
    "timers_instants": ("/fireAt", "a timer must fire before the year 9000"),
    "timers_cancelled_by": ("/requestedBy", "requestedBy has 1 to 200 characters"),
    "timers_cancel_reason": ("/reason", "a reason has at most 1,000 characters"),
    "timers_metadata": ("/metadata", "metadata is a JSON object"),
    "timers_metadata_size": (
        "/metadata",
        "metadata is at most 64 KiB, counted with numbers written out (1e308 has 309 digits)",
    ),
    "timers_labels": ("/labels", "at most 64 labels: keys of 1 to 63, text values of up to 255 characters"),
    "timers_action_bundle": ("/actionBundle", "this action bundle is not well formed"),
    "timers_action_bundle_size": ("/actionBundle", "an action bundle is at most 256 KiB"),
    "timers_agent_binding": ("/agentBinding", "this agent binding is not well formed"),
    "timers_agent_binding_size": ("/agentBinding", "an agent binding is at most 256 KiB"),
    "timers_schedule": ("/schedule", 'a schedule is a JSON object, as {"cron": "0 9 * * 1-5"}'),
    "timers_schedule_size": ("/schedule", "a schedule is at most 64 KiB"),
    "signing_secrets_destination": (
        "/destination",
        'a destination is an origin, scheme, host and port without a path, as "https://example.com"',
    ),
    "deliveries_ack_result_size": (
        "/result",
        "a result is at most 16 KiB, counted with numbers written out (1e308 has 309 digits)",
    ),
    "timers_numbers": ("", "a number in it is out of range: beyond about 1.8e308"),
    "timers_depth": ("", "the JSON is nested deeper than 32 levels"),
}

# SQLSTATE classes and codes that say "not now": connection, resources, intervention (shutdown, fail-over, recovery).
_AWAY_CLASSES = ("08", "53", "57", "58")
# What a row can do to the batch it is in; anything else is the database's own state.
ROW_ERRORS = (
    InvalidTimer,
    NameTaken,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.RaiseError,
)
_KEYED = "".join(f"set local enable_{way} = off; " for way in ("seqscan", "hashjoin", "mergejoin"))
_LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_RETRIED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


async def _keep(_connection: Connection) -> None:
    """Nothing to reset: no statement of ours leaves state in a session, so the round trip of RESET ALL is saved.

    The pool itself has rolled back before what a cancelled task left open: without that a connection would go back
    inside a transaction, and what is written on it next would never be committed.
    """


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Driver errors as ours; what is nobody's fault but ours passes as it is."""
    try:
        yield
    except asyncpg.CheckViolationError as refused:
        if known := _CONSTRAINTS.get(refused.constraint_name or ""):
            raise InvalidTimer([Finding(*known)]) from refused
        raise
    except asyncpg.UniqueViolationError as taken:
        if taken.constraint_name == "timers_unique_name":
            raise NameTaken from taken
        raise
    except (asyncpg.NumericValueOutOfRangeError, asyncpg.UntranslatableCharacterError) as refused:
        raise InvalidTimer.at("", "a number in it is out of range, or a character cannot be stored") from refused
    except asyncpg.ReadOnlySQLTransactionError as lost:
        raise StoreUnavailable(
            "the database is read-only at the moment (a fail-over?); nothing was changed, try again"
        ) from lost
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as refused:
        what = "database" if isinstance(refused, asyncpg.InvalidCatalogNameError) else "user or password"
        raise StoreUnavailable(f"Postgres refuses the {what} in MINOOTS_DATABASE_URL", is_refusal=True) from refused
    except asyncpg.PostgresError as lost:
        if (lost.sqlstate or "").startswith(_AWAY_CLASSES) or lost.sqlstate in ("55P03", "25P03"):
            raise StoreUnavailable from lost
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as lost:
        raise StoreUnavailable from lost


async def _connect(*given: Any, **options: Any) -> Any:
    """asyncpg's own; ConfigError for a URL that it cannot read, without the password that may be in it."""
    try:
        return await asyncpg.connect(*given, **options)
    except (ValueError, asyncpg.ClientConfigurationError):
        raise ConfigError(
            "MINOOTS_DATABASE_URL is not usable; write it as postgresql://user:password@host:5432/database"
        ) from None


async def reach(url: str) -> None:
    """Connect once, for what does not work over a pool of ours; raises StoreUnavailable or ConfigError."""
    with translated():
        connection = await _connect(url, timeout=5)
        await connection.close()


class Database:
    """A pool of connections to one installation. Works behind PgBouncer in transaction mode."""

    def __init__(self, settings: StoreSettings) -> None:
        if settings.url is None:
            raise ConfigError("set MINOOTS_DATABASE_URL to the Postgres that keeps the timers (or use `minoots up`)")
        self.url = settings.url
        self.schema = settings.schema
        self._prepared = settings.prepared_statements
        self._size = settings.pool_size
        self._pool: Pool | None = None

    async def __aenter__(self) -> "Database":
        # The URL is read when the first connection is made.
        self._pool = await asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=self._size,
            connect=_connect,
            reset=_keep,
            statement_cache_size=200 if self._prepared else 0,
            max_cacheable_statement_size=64 * 1024,
            max_inactive_connection_lifetime=300,
            timeout=5,
            command_timeout=60,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            try:
                async with asyncio.timeout(5):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """One connection, each statement its own transaction; StoreUnavailable after 5 s without one."""
        assert self._pool is not None, "the database is not open"
        with translated():
            if self._prepared:
                async with self._pool.acquire(timeout=5) as connection:
                    yield connection
            else:
                # An unnamed statement is parsed and run in two steps: behind PgBouncer only a transaction holds both
                # on one server.
                async with self.guarded() as connection:
                    yield connection

    @contextlib.asynccontextmanager
    async def transaction(self, settings: str = "") -> AsyncIterator[Connection]:
        """One READ COMMITTED transaction, committed where the block ends well.

        `settings` are statements that come with its beginning, in the same round trip.
        """
        assert self._pool is not None, "the database is not open"
        with translated():
            async with self._pool.acquire(timeout=5) as connection:
                try:
                    await connection.execute(f"begin; {settings}")
                    yield connection
                except BaseException:
                    # What happened counts, and not that the connection is gone as well; the pool looks after it.
                    with contextlib.suppress(*_LOST):
                        await connection.execute("rollback")
                    raise
                await connection.execute("commit")

    @contextlib.asynccontextmanager
    async def guarded(
        self,
        idle: str = "3s",
        lock: str = "2s",
        statement: str = "30s",
        *,
        is_durable: bool = True,
        is_keyed: bool = False,
    ) -> AsyncIterator[Connection]:
        """A loop's transaction: the server ends it when this process is stopped or cut off, so that its locks go.

        What it repeats is planned once. With `is_durable` false the commit does not wait for the disk: for what may be
        done again after the server crashed. With `is_keyed` every row is found by an index, whatever the statistics
        say: a plan made while a table was empty would go on to read all of it.
        """
        settings = (
            f"set local idle_in_transaction_session_timeout = '{idle}'; set local lock_timeout = '{lock}'; "
            f"set local statement_timeout = '{statement}'; set local plan_cache_mode = force_generic_plan; "
            + ("" if is_durable else "set local synchronous_commit = off; ")
            + (_KEYED if is_keyed else "")
        )
        async with self.transaction(settings) as connection:
            yield connection

    async def repeat(self, work: Callable[[], Awaitable[T]], times: int = 5) -> T:
        """Run `work` again when Postgres chose it as the victim of a deadlock: that is normal, and nothing was done."""
        for attempt in range(1, times + 1):
            try:
                return await work()
            except _RETRIED:
                if attempt == times:
                    raise
                await asyncio.sleep(0.01 * attempt)
        raise AssertionError("unreachable")

    def sql(self, statement: str) -> str:
        """The statement for this installation's schema; they are written for `minoots`."""
        return in_schema(statement, self.schema)

    async def run(self, connection: Connection, statement: Executable) -> list[Any]:
        """A statement built with SQLAlchemy, on the open connection."""
        compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        rows: list[Any] = await connection.fetch(self.sql(str(compiled)), *values)
        return rows


def describe_refusal(error: BaseException) -> str:
    """What the database said of a row, without the row: its details would hold the user's data."""
    cause = error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
    return str(cause.args[0] if cause.args else cause).splitlines()[0][:300]


@lru_cache(maxsize=512)
def in_schema(statement: str, schema: str) -> str:
    """Put the schema's name in the place of `minoots`, once a statement."""
    return statement if schema == "minoots" else _QUALIFIER.sub(f'"{schema}".', statement)
