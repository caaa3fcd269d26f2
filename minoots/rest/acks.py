"""The call with which a receiver says how its work went."""

import re

from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope

from minoots.access.ack_tokens import HEADER, AckTokens
from minoots.access.keys import Keys
from minoots.domain.ack import AckRequest, admit_ack
from minoots.domain.json_text import read_json
from minoots.domain.limits import ACTION_ID, BODY_BYTES
from minoots.errors import DeliveryNotFound, FiringNotFound, TimerNotFound, Unauthenticated
from minoots.rest.answers import Answer, HttpRequest, json_answer
from minoots.rest.body import read_body
from minoots.rest.parameters import (
    TENANT_ONLY,
    choose_tenant,
    header,
    identify,
    path_occurrence,
    path_timer,
    read_query,
)
from minoots.service.acks import Acknowledgements
from minoots.store.deliveries import DeliveryKey

_DELIVERY_ID = re.compile(ACTION_ID + "(~[1-9])?")


class AckRoutes:
    """Handlers over the service. Who has the delivery's token needs no API key."""

    def __init__(self, acks: Acknowledgements, tokens: AckTokens, keys: Keys) -> None:
        self._acks = acks
        self._tokens = tokens
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        path = "/timers/{timer_id:str}/firings/{occurrence:str}/deliveries/{action_id:str}/ack"
        return [HTTPRouteHandler(path, http_method="POST")(self.acknowledge)]

    async def acknowledge(self, request: HttpRequest) -> Answer:
        scope = request.scope
        has_token = self._has_token(scope)
        caller = None if has_token else identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), AckRequest)
        # With the token the tenant follows from the delivery.
        named = ("the body's tenantId", asked.tenant_id)
        tenant = None if caller is None else choose_tenant(caller, scope, query, named)
        return json_answer(await self._acks.acknowledge(tenant, path_delivery(scope), admit_ack(asked)))

    def _has_token(self, scope: HTTPScope) -> bool:
        """Whether it comes with the delivery's token; Unauthenticated for another, whatever there is at this path."""
        try:
            key = path_delivery(scope)
        except (TimerNotFound, FiringNotFound, DeliveryNotFound):
            key = None
        token = header(scope, HEADER.encode())
        if token is not None:
            if key is None or not self._tokens.is_good(token, key.webhook_id):
                raise Unauthenticated(f"the header {HEADER} is not the token that came with this delivery")
            return True
        if key is None or header(scope, b"x-api-key") is not None:
            return False
        scheme, _, bearer = (header(scope, b"authorization") or "").partition(" ")
        return scheme.lower() == "bearer" and self._tokens.is_good(bearer.strip(), key.webhook_id)


def path_delivery(scope: HTTPScope) -> DeliveryKey:
    """The path's delivery; TimerNotFound, FiringNotFound or DeliveryNotFound when it can be none."""
    params = scope["path_params"]
    timer_id, occurrence, action_id = path_timer(params), path_occurrence(params), str(params["action_id"])
    if not _DELIVERY_ID.fullmatch(action_id):
        raise DeliveryNotFound
    return DeliveryKey(timer_id, occurrence, action_id)
