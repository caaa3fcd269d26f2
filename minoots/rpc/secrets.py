"""The verbs of HorologyKernel for signing secrets."""

from typing import Any, Final

import msgspec

from minoots.domain.json_text import read_json
from minoots.domain.signing import SecretRequest, admit_secret
from minoots.errors import SigningSecretNotFound, TimerNotFound
from minoots.rpc import requests
from minoots.rpc.calls import Call, Verb
from minoots.rpc.convert import show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.secrets import SigningSecrets

READ: Final = "secrets:read"
WRITE: Final = "secrets:write"


class SecretVerbs:
    """The part of the service that has signing secrets. It has no rules of its own."""

    def __init__(self, secrets: SigningSecrets) -> None:
        self._secrets = secrets

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {
            "CreateSigningSecret": Verb(pb.SigningSecretCreateRequest, WRITE, self.create),
            "ListSigningSecrets": Verb(pb.SigningSecretListRequest, READ, self.list_secrets),
            "DeleteSigningSecret": Verb(pb.SigningSecretDeleteRequest, WRITE, self.delete),
        }

    async def create(self, request: pb.SigningSecretCreateRequest, call: Call) -> pb.SigningSecret:
        wanted = admit_secret(read_json(_body(request), SecretRequest))
        return show_struct(pb.SigningSecret, await self._secrets.create(call.tenant_id, wanted))

    async def list_secrets(self, request: pb.SigningSecretListRequest, call: Call) -> pb.SigningSecretListResponse:
        before = requests.read_timer_token(request.page_token)
        page = await self._secrets.list_secrets(call.tenant_id, before, requests.read_page_size(request.page_size))
        shown = [show_struct(pb.SigningSecret, secret) for secret in page.items]
        return pb.SigningSecretListResponse(signing_secrets=shown, next_page_token=page.next_cursor or "")

    async def delete(self, request: pb.SigningSecretDeleteRequest, call: Call) -> pb.SigningSecret:
        try:
            secret_id = requests.read_timer_id(request.secret_id)
        except TimerNotFound:
            raise SigningSecretNotFound from None
        return show_struct(pb.SigningSecret, await self._secrets.end(call.tenant_id, secret_id))


def _body(request: pb.SigningSecretCreateRequest) -> bytes:
    """The body of the REST call that says the same."""
    asked: dict[str, Any] = {"requestedBy": request.requested_by} if request.requested_by else {}
    if request.HasField("destination"):
        asked["destination"] = request.destination
    if request.HasField("secret"):
        asked["secret"] = request.secret
    if request.HasField("overlap_ms"):
        asked["overlap"] = request.overlap_ms
    return msgspec.json.encode(asked)
