"""What every call goes through: the key, the scope, the tenant, the deadline, and errors translated once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from minoots.access.ack_tokens import HEADER
from minoots.access.keys import Caller, Keys
from minoots.errors import BodyTooLarge, ConfigError, MalformedRequest, MinootsError, Unauthenticated, Unavailable
from minoots.rpc.status import status_of

log = structlog.get_logger("minoots.rpc")

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Context = Handler = Any
Req = TypeVar("Req", bound=Message)

READ: Final = "timers:read"
WRITE: Final = "timers:write"
# The bound of a timer is counted as JSON; a Struct of small numbers takes six times as much.
MESSAGE_BYTES: Final = 2 * 1024 * 1024
_INTERNAL = "something went wrong on the server's side; its log says what"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that may go on. `tenant_id` is one that the key may use; `traceparent` is as it came.

    `is_by_token`: it came with the delivery's own token instead of a key, and of no tenant.
    """

    tenant_id: str
    traceparent: str | None
    context: Context
    is_by_token: bool = False


@dataclass(frozen=True, slots=True)
class Verb(Generic[Req]):
    """One method of the service. `run` answers with a message, or, when `streams`, writes messages by the context.

    `tenants` are the places of the message that name a tenant; one that is not `is_of_tenant` needs none.
    `admits_token` says whether the token of a delivery is good for what the message names.
    """

    kind: type[Req]
    scope: str
    run: Callable[[Req, Call], Awaitable[Message | None]]
    tenants: Callable[[Req], Iterable[tuple[str, str | None]]] = lambda request: (
        ("the message's tenant_id", getattr(request, "tenant_id")),  # noqa: B009 - Req is any of the messages
    )
    most_bytes: int = MESSAGE_BYTES
    streams: bool = False
    is_of_tenant: bool = True
    admits_token: Callable[[Req, str], bool] | None = None


class Drain:
    """Ends open streams when the server goes away, and says when the last call has ended."""

    def __init__(self) -> None:
        self._streams: set[asyncio.Timeout] = set()
        self._calls = 0
        self._has_begun = False
        self._empty = asyncio.Event()
        self._empty.set()

    def begin(self) -> None:
        """Every open stream ends now, with what it is just sending; new calls are refused."""
        self._has_begun = True
        for stream in self._streams:
            stream.reschedule(asyncio.get_running_loop().time())

    async def ended(self) -> None:
        """Wait until no call is open."""
        await self._empty.wait()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Around each call; raises Unavailable when the server is going away."""
        if self._has_begun:
            raise Unavailable("this server is going away; call again and another will answer")
        self._calls += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def interrupted(self) -> AsyncIterator[None]:
        """Around each stream; raises Unavailable in it when the server goes away."""
        scope = asyncio.timeout(None)
        self._streams.add(scope)
        try:
            async with scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise Unavailable("this server is going away; call again with the last resume_token") from None
            raise
        finally:
            self._streams.discard(scope)


class Calls:
    """Makes gRPC's handlers out of verbs. Bytes come in, so that nothing is parsed for a caller without a key."""

    def __init__(self, keys: Keys, drain: Drain) -> None:
        self._keys = keys
        self._drain = drain

    def handler(self, name: str, verb: Verb[Any]) -> Handler:
        """The handler of one method; `name` is for the log."""

        async def behave(raw: bytes, context: Context) -> Message | None:
            try:
                with self._drain.counted():
                    return await self._run(verb, raw, context)
            except MinootsError as refused:
                if isinstance(refused, ConfigError):
                    log.warning("rpc.not_set_up", method=name, reason=refused.detail)
                status = status_of(refused)
            except Exception:
                log.exception("rpc.failed", method=name)
                await context.abort(grpc.StatusCode.INTERNAL, _INTERNAL)
            return await context.abort(status.code, status.details, status.trailing_metadata)

        make = grpc.unary_stream_rpc_method_handler if verb.streams else grpc.unary_unary_rpc_method_handler
        handler: Handler = make(behave, request_deserializer=None, response_serializer=_serialize)
        return handler

    async def _run(self, verb: Verb[Any], raw: bytes, context: Context) -> Message | None:
        remaining: float | None = context.time_remaining()
        if remaining is not None and remaining <= 0:
            # Nobody waits for the answer: begin nothing. gRPC itself has told the caller.
            raise asyncio.CancelledError
        metadata = _texts(context)
        if verb.admits_token is not None and (token := _token(metadata)) is not None:
            asked = _parse(verb, raw)
            if verb.admits_token(asked, token):
                return await verb.run(asked, Call("", _trace(metadata), context, is_by_token=True))
            if HEADER in metadata:
                raise Unauthenticated(f"the metadata {HEADER} is not the token that came with this delivery")
        caller = self._identify(metadata)
        caller.require(verb.scope)
        request = _parse(verb, raw)
        named = [("the metadata x-tenant-id", value) for value in metadata.get("x-tenant-id", ())]
        tenant_id = caller.choose_tenant([*verb.tenants(request), *named]) if verb.is_of_tenant else ""
        call = Call(tenant_id, _trace(metadata), context)
        if not verb.streams:
            return await verb.run(request, call)
        async with self._drain.interrupted():
            return await verb.run(request, call)

    def _identify(self, metadata: dict[str, list[str]]) -> Caller:
        keys = metadata.get("x-api-key")
        if keys:
            return self._keys.identify(keys[0].strip())
        scheme, _, token = metadata.get("authorization", [""])[0].strip().partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Unauthenticated
        return self._keys.identify(token.strip() or None)


def _parse(verb: Verb[Req], raw: bytes) -> Req:
    if len(raw) > verb.most_bytes:
        raise BodyTooLarge(f"the message is over its limit of {verb.most_bytes >> 20} MiB")
    try:
        return verb.kind.FromString(raw)
    except DecodeError:
        raise MalformedRequest(
            f"the message is no {verb.kind.__name__}: it is cut, is nested too deep, or has text that is not UTF-8"
        ) from None


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _token(metadata: dict[str, list[str]]) -> str | None:
    """What may be the token of a delivery: a bearer may have an API key as well."""
    if HEADER in metadata:
        return metadata[HEADER][0].strip()
    scheme, _, bearer = metadata.get("authorization", [""])[0].strip().partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" and "x-api-key" not in metadata else None


def _trace(metadata: dict[str, list[str]]) -> str | None:
    traces = metadata.get("traceparent", [])
    return traces[0].strip() if len(traces) == 1 else None


def _texts(context: Context) -> dict[str, list[str]]:
    """The caller's metadata by name."""
    found: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name, []).append(value)
    return found
