"""The verbs of HorologyKernel for what gave up."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from minoots.domain.dead_letter import Place, RedriveRequest, Wanted, read_cursor
from minoots.domain.json_text import read_json
from minoots.domain.limits import URL_CHARACTERS
from minoots.errors import InvalidTimer, MalformedRequest
from minoots.rpc import requests
from minoots.rpc.calls import READ, WRITE, Call, Verb
from minoots.rpc.convert import read_instant, show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.dead_letters import DeadLetters

_Text = Literal["kind", "lane", "reason"]
_Bound = Literal["since", "until"]
_TEXTS: Final[tuple[_Text, ...]] = ("kind", "lane", "reason")
_BOUNDS: Final[tuple[_Bound, ...]] = ("since", "until")


class DeadLetterVerbs:
    """The part of the service about dead letters. It has no rules of its own."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {
            "ListDeadLetters": Verb(pb.DeadLetterListRequest, READ, self.list_dead),
            "RedriveDeadLetters": Verb(pb.DeadLetterRedriveRequest, WRITE, self.redrive),
        }

    async def list_dead(self, request: pb.DeadLetterListRequest, call: Call) -> pb.DeadLetterListResponse:
        size = requests.read_page_size(request.page_size)
        after = _read_token(request.page_token)
        page = await self._dead_letters.list_dead(call.tenant_id, _read_wanted(request.filter), after, size)
        shown = [show_struct(pb.DeadLetter, letter) for letter in page.items]
        return pb.DeadLetterListResponse(dead_letters=shown, next_page_token=page.next_cursor or "")

    async def redrive(self, request: pb.DeadLetterRedriveRequest, call: Call) -> pb.DeadLetterRedriveResponse:
        done = await self._dead_letters.redrive(call.tenant_id, read_json(_body(request), RedriveRequest))
        return pb.DeadLetterRedriveResponse(matched=done.matched, redriven=done.redriven)


def _read_wanted(asked: pb.DeadLetterFilter) -> Wanted:
    texts: dict[str, str] = {name: getattr(asked, name) for name in _TEXTS if asked.HasField(name)}
    for name, text in texts.items():
        if not 1 <= len(text) <= URL_CHARACTERS or "\0" in text:
            raise MalformedRequest(f"{name} has 1 to {URL_CHARACTERS:,} characters, and no NUL")
    return Wanted(
        timer_id=requests.read_timer_id(asked.timer_id) if asked.HasField("timer_id") else None,
        since=_read_bound("since", asked),
        until=_read_bound("until", asked),
        **texts,
    )


def _read_bound(name: _Bound, asked: pb.DeadLetterFilter) -> datetime | None:
    try:
        return read_instant(getattr(asked, name)) if asked.HasField(name) else None
    except ValueError as wrong:
        raise MalformedRequest(f"{name} cannot be read: {wrong}") from None


def _read_token(text: str) -> Place | None:
    try:
        return read_cursor(text) if text else None
    except ValueError:
        raise MalformedRequest("this is no page token; take next_page_token of the page before") from None


def _body(request: pb.DeadLetterRedriveRequest) -> bytes:
    """The body of the REST call that says the same."""
    asked: dict[str, Any] = {"dryRun": request.dry_run}
    if request.HasField("requested_by"):
        asked["requestedBy"] = request.requested_by
    if request.HasField("per_second"):
        asked["perSecond"] = request.per_second
    if request.deliveries:
        asked["deliveries"] = [
            {"timerId": key.timer_id, "occurrence": key.occurrence, "actionId": key.action_id}
            for key in request.deliveries
        ]
    if request.HasField("filter"):
        asked["filter"] = _filter_body(request.filter)
    try:
        return msgspec.json.encode(asked)
    except msgspec.MsgspecError:
        raise InvalidTimer.at("/perSecond", "perSecond is a number above 0") from None


def _filter_body(asked: pb.DeadLetterFilter) -> dict[str, Any]:
    body: dict[str, Any] = {name: getattr(asked, name) for name in _TEXTS if asked.HasField(name)}
    if asked.HasField("timer_id"):
        body["timerId"] = asked.timer_id
    for bound in _BOUNDS:
        if asked.HasField(bound):
            body[bound] = requests.instant(f"/filter/{bound}", getattr(asked, bound))
    return body
