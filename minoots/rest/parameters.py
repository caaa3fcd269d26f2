"""What stands beside the body: query parameters and headers, read strictly."""

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, unquote
from uuid import UUID

from litestar.types import HTTPScope

from minoots.access.keys import Caller, Keys
from minoots.domain.duration import parse_instant
from minoots.domain.limits import NAME_CHARACTERS, PAGE_DEFAULT, PAGE_MOST
from minoots.domain.update import ANY_VERSION
from minoots.errors import FiringNotFound, InvalidTimer, MalformedRequest, TimerNotFound, Unauthenticated

T = TypeVar("T")
Query: TypeAlias = Mapping[str, list[str]]

TENANT_ONLY = frozenset({"tenantId"})
PAGED = frozenset({"tenantId", "limit", "cursor"})

BY_NAME = "/timers/by-name/"

_OCCURRENCE_MOST = 2**31 - 1
_NO_PARAMETERS: Query = {}
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TAG = re.compile(r'"([1-9][0-9]{0,18})"')
_ANY_TAG = re.compile(r'(W/)?"[^"]*"')
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
# An offset whose + was not escaped arrives as a space.
_LOST_PLUS = re.compile(r"(T.*) (\d\d:\d\d)")


def read_query(raw: bytes, known: frozenset[str], repeatable: frozenset[str] = frozenset()) -> Query:
    """The parameters by name; MalformedRequest for one that is unknown, repeated or not readable."""
    if not raw:
        return _NO_PARAMETERS
    if _BROKEN_ESCAPE.search(raw):
        raise MalformedRequest("the query has a % that is not followed by two hexadecimal digits; write % as %25")
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=200)
    except UnicodeDecodeError:
        raise MalformedRequest("the query is not UTF-8") from None
    except ValueError:
        raise MalformedRequest("the query has more than 200 parameters") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise MalformedRequest(_unknown(name, known))
        if name in found and name not in repeatable:
            raise MalformedRequest(f"the parameter {name} is given twice; give it once")
        if "\0" in value:
            raise MalformedRequest(f"the parameter {name} holds the character NUL")
        found.setdefault(name, []).append(value)
    return found


def _unknown(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    return f"there is no parameter {name[:64]!r}; {hint}"


def one(query: Query, name: str, read: Callable[[str], T]) -> T | None:
    """The parameter as `read` understands it, None when it is not given; its ValueError is a MalformedRequest."""
    values = query.get(name)
    if values is None:
        return None
    try:
        return read(values[0])
    except ValueError as wrong:
        raise MalformedRequest(f"the parameter {name} cannot be read: {wrong}") from None


def page_size(query: Query) -> int:
    """`limit`, from 1 to 500; 50 when it is not given."""
    return one(query, "limit", _read_limit) or PAGE_DEFAULT


def _read_limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= PAGE_MOST:
        raise ValueError(f"write a whole number from 1 to {PAGE_MOST}")
    return int(text)


def read_instant(text: str) -> datetime:
    """An RFC 3339 instant, also where the + of its offset was not escaped as %2B."""
    return parse_instant(_LOST_PLUS.sub(r"\1+\2", text))


def read_timer_id(text: str) -> UUID:
    """A timer's id, as a parameter has it."""
    if not _UUID.fullmatch(text):
        raise ValueError("this is no timer's id")
    return UUID(text)


def read_timer_cursor(text: str) -> UUID:
    """Where a list of timers goes on."""
    if not _UUID.fullmatch(text):
        raise ValueError("this is no cursor; take nextCursor of the page before")
    return UUID(text)


def read_firing_cursor(text: str) -> int:
    """Where a list of firings goes on."""
    occurrence = _occurrence(text)
    if occurrence is None:
        raise ValueError("this is no cursor; take nextCursor of the page before")
    return occurrence


def path_timer(params: Mapping[str, Any]) -> UUID:
    """The path's timer id; TimerNotFound when it is none at all."""
    text = str(params["timer_id"])
    if not _UUID.fullmatch(text):
        raise TimerNotFound
    return UUID(text)


def path_occurrence(params: Mapping[str, Any]) -> int:
    """The path's occurrence, 1 and up; FiringNotFound when it is none at all."""
    occurrence = _occurrence(str(params["occurrence"]))
    if occurrence is None:
        raise FiringNotFound
    return occurrence


def _occurrence(text: str) -> int | None:
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text) or int(text) > _OCCURRENCE_MOST:
        return None
    return int(text)


def header(scope: HTTPScope, name: bytes) -> str | None:
    """The header's value, None when it is not there; MalformedRequest when it is repeated or not UTF-8."""
    found = [value for key, value in scope["headers"] if key == name]
    if not found:
        return None
    if len(found) > 1:
        raise MalformedRequest(f"the header {name.decode()} is given twice; give it once")
    try:
        return found[0].decode().strip()
    except UnicodeDecodeError:
        raise MalformedRequest(f"the header {name.decode()} is not UTF-8") from None


def is_only_new(scope: HTTPScope) -> bool:
    """Whether it must not be there yet: `If-None-Match: *` (RFC 9110, section 13.1.2). MalformedRequest for a tag."""
    text = header(scope, b"if-none-match")
    if text not in (None, "*"):
        raise MalformedRequest("If-None-Match takes * here: put the timer only if there is none of this name")
    return text == "*"


def if_match(scope: HTTPScope) -> int | None:
    """The version that the timer must have (RFC 9110, section 13.1.1): ANY_VERSION for `*`, None when it may be any.

    A tag that is none of ours matches no version, as a weak one does. Raises MalformedRequest, also for several.
    """
    text = header(scope, b"if-match")
    if text is None:
        return None
    if text == "*":
        return ANY_VERSION
    if found := _TAG.fullmatch(text):
        return int(found[1])
    if _ANY_TAG.fullmatch(text):
        return -1
    raise MalformedRequest('If-Match is one ETag of the timer, in its quotes: If-Match: "3", or * for any')


def path_name(scope: HTTPScope) -> str:
    """The name in the path, percent-decoded once; a / may be in it."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    text = raw.decode("latin-1").partition("?")[0].partition(BY_NAME)[2]
    if _BROKEN_ESCAPE.search(text.encode("latin-1")):
        raise MalformedRequest("the path has a % that is not followed by two hexadecimal digits; write % as %25")
    try:
        name = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise MalformedRequest("the name in the path is not UTF-8") from None
    if "\0" in name:
        raise InvalidTimer.at("/name", "text may not hold the character NUL")
    if not 1 <= len(name) <= NAME_CHARACTERS:
        raise InvalidTimer.at("/name", f"a name has 1 to {NAME_CHARACTERS} characters")
    return name


def traceparent(scope: HTTPScope) -> str | None:
    """The caller's trace context. One that cannot be read counts as none (W3C Trace Context, section 4.3)."""
    found = [value for key, value in scope["headers"] if key == b"traceparent"]
    return found[0].decode("latin-1").strip() if len(found) == 1 else None


def identify(keys: Keys, scope: HTTPScope, need: str) -> Caller:
    """Who calls, with the scope that the call needs; Unauthenticated or Forbidden."""
    caller = keys.identify(_api_key(scope))
    caller.require(need)
    return caller


def _api_key(scope: HTTPScope) -> str | None:
    bearer: str | None = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return value.strip().decode(errors="surrogateescape")
        if name == b"authorization":
            scheme, _, token = value.strip().decode(errors="surrogateescape").partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthenticated
            bearer = token.strip()
    return bearer


def choose_tenant(caller: Caller, scope: HTTPScope, query: Query, *named: tuple[str, str | None]) -> str:
    """The tenant that body (`named`: where and value), parameter and headers agree on, else the key's only one."""
    given = [*named, *(("the parameter tenantId", value) for value in query.get("tenantId", ()))]
    for name, value in scope["headers"]:
        if name == b"x-tenant-id":
            given.append(("the header x-tenant-id", value.strip().decode(errors="backslashreplace")))
    return caller.choose_tenant(given)
