"""Reading an answer: what it means for the delivery, how long the receiver asks to be left alone, what it said."""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import aiohttp
import msgspec

from minoots.domain.duration import parse_duration
from minoots.domain.outcome import AFTER_MOST, Answer, Directive, Outcome, Rejected, Retry

READ_BYTES = 64 * 1024
EXCERPT_CHARACTERS = 4 * 1024

_SECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
_RESET = re.compile(r"([0-9]{1,11})(?:\.[0-9]{1,9})?", re.ASCII)
# RFC 9110, section 5.6.7: the one form that is written today, and the two that must be read as well.
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:"
    r", [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT|"
    r"[a-z]*, [0-9]{2}-[A-Z][a-z]{2}-[0-9]{2} [0-9:]{8} GMT|"
    r" [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4})",
    re.ASCII,
)
# What is smaller is a number of seconds from now, what is larger counts from 1970 (this is in September 2001).
_EPOCH_FROM = 1_000_000_000
# Larger than any time in seconds that is near: milliseconds, or nonsense.
_EPOCH_TO = 100_000_000_000


class _Asked(msgspec.Struct, rename="camel"):
    snooze: str | int | None = None
    cancel_schedule: bool = False


class _Steering(msgspec.Struct):
    minoots: _Asked


_steering = msgspec.json.Decoder(_Steering)


async def read_answer(response: aiohttp.ClientResponse, into: bytearray) -> bool:
    """Up to 64 KiB of it, as it came; whether that was all. Of a longer one the connection is given up."""
    async for chunk in response.content.iter_any():
        into += chunk
        if len(into) >= READ_BYTES:
            response.close()
            return False
    return True


def failure_of(status: int, answer: Answer, after: timedelta | None) -> Outcome:
    """What a status that is no 2xx means: 410 is the end, everything else is tried again, for receivers get mended."""
    if 300 <= status < 400:
        return Retry(f"HTTP {status}: redirects are not followed", answer, after)
    if status == 410:
        return Rejected("HTTP 410: the receiver is gone for good", answer)
    return Retry(f"HTTP {status}", answer, after)


def read_after(status: int, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the receiver asks to be left alone (RFC 9110, section 10.2.3), at most AFTER_MOST; None for nonsense.

    A date is compared with the answer's own Date, else with `now`. X-RateLimit-Reset (seconds, from now or from 1970)
    counts where nothing is left of the limit.
    """
    asked = headers.get("Retry-After")
    if asked is not None and (after := _read_retry_after(asked.strip(), headers, now)) is not None:
        return _bounded(after)
    if status == 429 or headers.get("X-RateLimit-Remaining", "").strip() == "0":
        found = _RESET.fullmatch(headers.get("X-RateLimit-Reset", "").strip())
        seconds = int(found[1]) if found else _EPOCH_TO
        if seconds < _EPOCH_FROM:
            return _bounded(timedelta(seconds=seconds))
        if seconds < _EPOCH_TO:
            # Rounded down by the sender.
            return _bounded(datetime.fromtimestamp(seconds + 1, UTC) - _date(headers, now))
    return None


def _read_retry_after(text: str, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    if _SECONDS.fullmatch(text):
        return timedelta(seconds=int(text))
    then = _read_date(text)
    return None if then is None else then - _date(headers, now)


def _date(headers: Mapping[str, str], now: datetime) -> datetime:
    return _read_date(headers.get("Date", "").strip()) or now


def _read_date(text: str) -> datetime | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        read = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return read.replace(tzinfo=UTC)


def _bounded(after: timedelta) -> timedelta | None:
    return min(after, AFTER_MOST) if after > timedelta() else None


def read_directive(body: bytes) -> Directive | None:
    """What an answer asks of the timer: `{"minoots": {"snooze": "2h"}}` or `{"minoots": {"cancelSchedule": true}}`.

    None when it asks for nothing that can be understood.
    """
    if b'"minoots"' not in body:
        return None
    try:
        asked = _steering.decode(body).minoots
        if asked.cancel_schedule:
            return Directive(cancel_schedule=True)
        if asked.snooze is None:
            return None
        return Directive(snooze=timedelta(milliseconds=parse_duration(asked.snooze)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def excerpt_of(body: bytes) -> str | None:
    """The beginning of the answer, at most 4 KiB of text; None when it said nothing."""
    return printable(body[: EXCERPT_CHARACTERS * 2])[:EXCERPT_CHARACTERS] or None


def printable(text: bytes) -> str:
    """Control characters and what is no UTF-8 escaped, so that it can be stored and shown; newlines and tabs stay."""
    shown = text.decode("utf-8", "backslashreplace")
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in shown)
