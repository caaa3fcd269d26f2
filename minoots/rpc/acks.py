"""The verb of HorologyKernel with which a receiver says how its work went."""

import re
from typing import Any

import msgspec

from minoots.access.ack_tokens import AckTokens
from minoots.domain.ack import AckRequest, admit_ack
from minoots.domain.json_text import read_json
from minoots.domain.limits import ACTION_ID
from minoots.errors import DeliveryNotFound, FiringNotFound, TimerNotFound
from minoots.rpc.calls import WRITE, Call, Verb
from minoots.rpc.convert import plain_value, show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.requests import located, read_occurrence, read_timer_id
from minoots.service.acks import Acknowledgements
from minoots.store.deliveries import DeliveryKey

_DELIVERY_ID = re.compile(ACTION_ID + "(~[1-9])?")


class AckVerbs:
    """The part of the service about acknowledgement. Who has the delivery's token needs no API key."""

    def __init__(self, acks: Acknowledgements, tokens: AckTokens) -> None:
        self._acks = acks
        self._tokens = tokens

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        verb = Verb(pb.DeliveryAcknowledgeRequest, WRITE, self.acknowledge, admits_token=self._is_token_good)
        return {"AcknowledgeDelivery": verb}

    async def acknowledge(self, request: pb.DeliveryAcknowledgeRequest, call: Call) -> pb.Delivery:
        # With the token the tenant follows from the delivery.
        tenant_id = None if call.is_by_token else call.tenant_id
        said = admit_ack(read_json(_body(request), AckRequest))
        return show_struct(pb.Delivery, await self._acks.acknowledge(tenant_id, _read_key(request), said))

    def _is_token_good(self, request: pb.DeliveryAcknowledgeRequest, token: str) -> bool:
        try:
            return self._tokens.is_good(token, _read_key(request).webhook_id)
        except (TimerNotFound, FiringNotFound, DeliveryNotFound):
            return False


def _read_key(request: pb.DeliveryAcknowledgeRequest) -> DeliveryKey:
    timer_id, occurrence = read_timer_id(request.timer_id), read_occurrence(request.occurrence)
    if not _DELIVERY_ID.fullmatch(request.action_id):
        raise DeliveryNotFound
    return DeliveryKey(timer_id, occurrence, request.action_id)


def _body(request: pb.DeliveryAcknowledgeRequest) -> bytes:
    """The body of the REST call that says the same."""
    asked: dict[str, Any] = {"outcome": request.outcome}
    if request.HasField("note"):
        asked["note"] = request.note
    if request.HasField("result"):
        asked["result"] = located("/result", lambda: plain_value(request.result))
    if request.HasField("extend_ms"):
        asked["extendMs"] = request.extend_ms
    return msgspec.json.encode(asked)
