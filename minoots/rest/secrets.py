"""The calls about signing secrets. A secret is in one answer only: the one to the call that made it."""

from uuid import UUID

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.json_text import read_json
from minoots.domain.limits import BODY_BYTES
from minoots.domain.signing import SecretRequest, admit_secret
from minoots.errors import SigningSecretNotFound
from minoots.rest.answers import Answer, HttpRequest, json_answer, page_answer
from minoots.rest.body import read_body
from minoots.rest.parameters import (
    PAGED,
    TENANT_ONLY,
    choose_tenant,
    identify,
    one,
    page_size,
    read_query,
    read_timer_cursor,
)
from minoots.service.secrets import SigningSecrets


class SecretRoutes:
    """Handlers over the service."""

    def __init__(self, secrets: SigningSecrets, keys: Keys) -> None:
        self._secrets = secrets
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            # Litestar's own knows only the methods of the handler that was registered first.
            HTTPRouteHandler("/signing-secrets", http_method="OPTIONS")(self.options),
            HTTPRouteHandler("/signing-secrets", http_method="POST")(self.create),
            HTTPRouteHandler("/signing-secrets", http_method=["GET", "HEAD"])(self.list_secrets),
            HTTPRouteHandler("/signing-secrets/{secret_id:str}", http_method="DELETE", status_code=200)(self.end),
        ]

    async def options(self, request: HttpRequest) -> Answer:
        return Answer(b"", 204, ((b"allow", b"GET, HEAD, OPTIONS, POST"),))

    async def create(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "secrets:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), SecretRequest)
        tenant = choose_tenant(caller, scope, query, ("the body's tenantId", asked.tenant_id))
        return json_answer(await self._secrets.create(tenant, admit_secret(asked)), 201)

    async def list_secrets(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "secrets:read")
        query = read_query(scope["query_string"], PAGED)
        tenant = choose_tenant(caller, scope, query)
        before = one(query, "cursor", read_timer_cursor)
        return page_answer(await self._secrets.list_secrets(tenant, before, page_size(query)))

    async def end(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "secrets:write")
        tenant = choose_tenant(caller, scope, read_query(scope["query_string"], TENANT_ONLY))
        return json_answer(await self._secrets.end(tenant, _path_secret(str(scope["path_params"]["secret_id"]))))


def _path_secret(text: str) -> UUID:
    """SigningSecretNotFound when it is no id at all."""
    try:
        return read_timer_cursor(text)
    except ValueError:
        raise SigningSecretNotFound from None
