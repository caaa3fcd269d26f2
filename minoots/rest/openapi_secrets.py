"""The part of the OpenAPI document about signing secrets."""

from typing import Any

from minoots.rest.openapi_parts import WITH_BODY, Document, answers, body, call, parameter, tenant

_SECRET: dict[str, Any] = {
    "id": "0199f5a2-7a10-7b3e-9d52-6a1f0c8be421",
    "tenantId": "demo",
    "destination": "https://example.com",
    "createdAt": "2030-01-31T08:00:00.000000Z",
    "expiresAt": None,
    "createdBy": "cli",
}
_SHOWN_ONCE = "whsec_bm90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="
_NEW = {
    "tenant": {
        "summary": "For all webhooks of the tenant, made by the server",
        "value": {"tenantId": "demo", "requestedBy": "cli"},
    },
    "destination": {
        "summary": "For one destination; the secret before it signs too for another two days",
        "value": {
            "tenantId": "demo",
            "requestedBy": "cli",
            "destination": "https://example.com",
            "overlap": "48h",
        },
    },
}
_ID = {
    "name": "secret_id",
    "in": "path",
    "required": True,
    "description": "The secret's id.",
    "schema": {"type": "string", "format": "uuid"},
}


def secret_paths() -> Document:
    """Making, listing and ending them."""
    create = call("createSigningSecret", "Create a signing secret, or rotate it", "signing secrets", tenant())
    create["requestBody"] = body("SecretRequest", _NEW)
    create["responses"] = answers(201, "NewSigningSecret", _SECRET | {"secret": _SHOWN_ONCE}, 409, *WITH_BODY)
    create["responses"]["201"]["links"] = {
        "deleteSigningSecret": {
            "operationId": "deleteSigningSecret",
            "parameters": {"path.secret_id": "$response.body#/id"},
        }
    }
    paging = [*tenant(), parameter("Limit"), parameter("TimerCursor")]
    listing = call("listSigningSecrets", "List the secrets that sign, newest first", "signing secrets", paging)
    listing["responses"] = answers(200, "SigningSecretPage", {"items": [_SECRET], "nextCursor": None})
    end = call("deleteSigningSecret", "Let a secret sign no more", "signing secrets", [_ID, *tenant()])
    end["responses"] = answers(200, "SigningSecret", _SECRET | {"expiresAt": "2030-01-31T08:05:00.000000Z"}, 404)
    return {
        "/signing-secrets": {"post": create, "get": listing},
        "/signing-secrets/{secret_id}": {"delete": end},
    }
