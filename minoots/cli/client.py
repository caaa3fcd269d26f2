"""A client of REST for the commands: one connection, kept open, and nothing but the standard library."""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from minoots.cli.exits import NOT_FOUND, REFUSED, CommandStopped, Unreachable, misused
from minoots.settings import Settings

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Problem:
    """What the server said no with. `findings` are (pointer, detail), RFC 9457."""

    status: int
    detail: str
    findings: Sequence[tuple[str, str]]
    retry_after: float | None

    def sentence(self) -> str:
        """A line for each finding, with where it is."""
        lines = [f"{detail} ({pointer})" if pointer else detail for pointer, detail in self.findings] or [self.detail]
        if self.status == 401:
            lines[-1] = f"{lines[-1]} (the commands send MINOOTS_API_KEY)"
        return "\n".join(lines)


class Refused(CommandStopped):
    """The server was reached and said no."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence(), NOT_FOUND if problem.status == 404 else REFUSED)
        self.problem = problem


class Api:
    """REST at one address. Answers are JSON as the server wrote it; raises Refused or Unreachable."""

    def __init__(self, url: str, key: str | None, tenant: str | None) -> None:
        self.url = url.rstrip("/")
        self.tenant = tenant
        self._parts = _readable(url)
        self._key = key
        if key is not None and not (key.isascii() and key.isprintable()):
            raise misused("MINOOTS_API_KEY holds characters that no key has; copy it again")
        self._connection: http.client.HTTPConnection | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, tenant: str | None = None) -> "Api":
        """As the settings say; `tenant` goes before MINOOTS_TENANT."""
        settings = Settings.from_env(environ).client
        return cls(settings.url, settings.key, tenant or settings.tenant)

    def get(self, path: str, query: Sequence[tuple[str, str]] = (), tenant: str | None = None) -> bytes:
        """GET as the client's tenant, or another one; `query` may repeat a name."""
        tenant = tenant or self.tenant
        pairs = [*([("tenantId", tenant)] if tenant else []), *query]
        return self._ask(
            "GET", f"{path}?{urlencode(pairs, errors='surrogateescape')}" if pairs else path, None, {}, repeatable=True
        )

    def post(
        self, path: str, body: dict[str, Any], *, idempotency_key: str | None = None, repeatable: bool = False
    ) -> bytes:
        """POST a body, which gets the client's `tenantId` when it has none.

        Without a key nobody knows after a broken connection whether it was carried out, so it is not sent again.
        """
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        is_safe = repeatable or idempotency_key is not None
        return self._send("POST", path, self._of_tenant(body), headers, repeatable=is_safe)

    def put(self, path: str, body: dict[str, Any], *, if_version: int | None = None) -> bytes:
        """PUT a body, which gets the client's `tenantId`; with a version only while it is that one."""
        return self._send("PUT", path, self._of_tenant(body), _if_match(if_version), repeatable=if_version is None)

    def patch(self, path: str, body: dict[str, Any], *, if_version: int | None = None) -> bytes:
        """PATCH with the fields that change; with a version only while it is that one."""
        return self._send("PATCH", path, self._of_tenant(body), _if_match(if_version), repeatable=if_version is None)

    def delete(self, path: str) -> bytes:
        """DELETE as the client's tenant; what is gone already is not found, so it may be sent again."""
        query = f"?{urlencode([('tenantId', self.tenant)])}" if self.tenant else ""
        return self._ask("DELETE", path + query, None, {}, repeatable=True)

    def preview(self, body: dict[str, Any]) -> bytes:
        """The next instants of a schedule; nothing is kept."""
        return self._send("POST", "/schedules/preview", body, {}, repeatable=True)

    def _of_tenant(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"tenantId": self.tenant, **body} if self.tenant and "tenantId" not in body else body

    def _send(
        self, method: str, path: str, body: dict[str, Any], headers: dict[str, str], *, repeatable: bool
    ) -> bytes:
        headers = {"Content-Type": "application/json", **headers}
        return self._ask(method, path, json.dumps(body).encode(), headers, repeatable=repeatable)

    def close(self) -> None:
        """Let the connection go; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str], *, repeatable: bool) -> bytes:
        headers = {"Accept": "application/json", "User-Agent": "minoots", **headers}
        if self._key is not None:
            headers["X-API-Key"] = self._key
        target = self._parts.path.rstrip("/") + path
        was_open = self._connection is not None
        try:
            try:
                return self._exchange(method, target, body, headers)
            except (ConnectionResetError, BrokenPipeError):
                # The server closed a connection that we kept; that says nothing about whether it is there.
                self.close()
                if not (was_open and repeatable):
                    raise
                return self._exchange(method, target, body, headers)
        except (OSError, http.client.HTTPException) as lost:
            self.close()
            raise Unreachable(self._describe_loss(lost, is_unsure=not repeatable)) from lost

    def _exchange(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        connection = self._connection or self._connect()
        try:
            connection.request(method, target, body, headers)
        except (ValueError, UnicodeEncodeError) as wrong:
            raise misused(f"this cannot be sent: {wrong}") from None
        answer = connection.getresponse()
        content = answer.read()
        if answer.will_close:
            self.close()
        return self._accept(answer, content)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(host, port, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as lost:
            raise Unreachable(self._describe_refusal(lost)) from lost
        connection.sock.settimeout(_ANSWER_SECONDS)
        self._connection = connection
        return connection

    def _accept(self, answer: http.client.HTTPResponse, content: bytes) -> bytes:
        is_json = "json" in answer.headers.get_content_type()
        if is_json and 200 <= answer.status < 300:
            return content
        if 300 <= answer.status < 400 and (elsewhere := answer.headers.get("Location")):
            raise Unreachable(f"{self.url} sends us to {elsewhere}; set MINOOTS_API_URL to where MINOOTS is")
        problem = read_problem(answer, content) if is_json else None
        if answer.status >= 500:
            said = problem.detail if problem else "the server, or what stands before it, has a fault; try again"
            raise ServerFault(f"{said} ({self.url} answered {answer.status})", answer.status)
        if problem is None:
            raise Unreachable(
                f"what answers at {self.url} is no MINOOTS (status {answer.status}); set MINOOTS_API_URL to where it is"
            )
        raise Refused(problem)

    def _describe_refusal(self, lost: OSError) -> str:
        if isinstance(lost, ConnectionRefusedError):
            return f"no server answers at {self.url}; start one with `make up` or set MINOOTS_API_URL"
        if isinstance(lost, ssl.SSLError):
            reason = getattr(lost, "reason", None) or lost
            return f"{self.url} cannot be trusted, or speaks no TLS ({reason}); check MINOOTS_API_URL"
        if isinstance(lost, TimeoutError):
            return f"no server answers at {self.url} within {_CONNECT_SECONDS:.0f} s; check MINOOTS_API_URL"
        if isinstance(lost, socket.gaierror):
            return f"the host of {self.url} is not known; check MINOOTS_API_URL"
        return f"{self.url} cannot be reached ({lost.strerror or lost}); check MINOOTS_API_URL"

    def _describe_loss(self, lost: Exception, *, is_unsure: bool) -> str:
        if isinstance(lost, http.client.BadStatusLine) and not isinstance(lost, http.client.RemoteDisconnected):
            return f"what answers at {self.url} speaks no HTTP; set MINOOTS_API_URL to where MINOOTS is"
        how = (
            f"was silent for {_ANSWER_SECONDS:.0f} s"
            if isinstance(lost, TimeoutError)
            else "went away before it answered"
        )
        unsure = (
            "; whether it was carried out is not known, look with `minoots timer list`" if is_unsure else "; try again"
        )
        return f"the server at {self.url} {how}{unsure}"


class ServerFault(Unreachable):
    """The server was reached and could not: 500, 502, 503, 504."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def read_problem(answer: http.client.HTTPResponse, content: bytes) -> Problem | None:
    """RFC 9457 problem details, with a pointer of its own or `errors: [{pointer, detail}]`; None when it is none."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    detail = str(said.get("detail") or said.get("title") or f"the server answered {answer.status}")
    errors = [e for e in said.get("errors") or () if isinstance(e, dict)]
    findings = [(str(e.get("pointer") or ""), str(e.get("detail") or detail)) for e in errors]
    if not findings and said.get("pointer"):
        findings = [(str(said["pointer"]), detail)]
    after = answer.headers.get("Retry-After", "")
    return Problem(answer.status, detail, findings, float(after) if after.isdecimal() else None)


def timer_path(timer_id: str, *more: str | int) -> str:
    """/timers/{id}/…, whatever was typed as the id; what was not UTF-8 goes out as it was."""
    if not timer_id.strip(". "):
        raise misused("give the timer's id, as `minoots timer list` shows it")
    return _path("/timers", timer_id.strip(), *more)


def secret_path(secret_id: str) -> str:
    """/signing-secrets/{id}, whatever was typed as the id."""
    if not secret_id.strip(". "):
        raise misused("give the secret's id, as `minoots secret list` shows it")
    return _path("/signing-secrets", secret_id.strip())


def named_path(name: str) -> str:
    """/timers/by-name/{name}, whatever characters are in it."""
    if not name.strip(". "):
        raise misused("give the timer's name")
    return _path("/timers/by-name", name)


def _path(*steps: str | int) -> str:
    first, *others = steps
    return "/".join([str(first), *(quote(str(step), safe="", errors="surrogateescape") for step in others)])


def _if_match(version: int | None) -> dict[str, str]:
    """The version as the entity tag that the timer has to have (RFC 9110, section 13.1.1)."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def _readable(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or not url.isprintable() or " " in url:
        raise misused(f"MINOOTS_API_URL={url!r} is no URL; write it as http://127.0.0.1:4000")
    return parts
