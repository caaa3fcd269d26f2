"""`minoots secret create|list|revoke`: what webhooks are signed with, through REST."""

import sys
from typing import Annotated, Any

import typer

from minoots.cli.timer_options import AsJson, Person, Tenant

app = typer.Typer(no_args_is_help=True, help="The secrets that webhooks are signed with (Standard Webhooks).")


@app.command()
def create(
    destination: Annotated[
        str | None,
        typer.Argument(metavar="ORIGIN", help="https://example.com: only webhooks there. Left out: all of the tenant."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", metavar="whsec_…|-", help="One that exists; - reads it from standard input."),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", metavar="DURATION", help="How long the former one signs too. [default: 24h]"),
    ] = None,
    requested_by: Person = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Create a secret and show it this once; where there is one already, that is its rotation."""
    import json

    from minoots.cli.client import Api
    from minoots.cli.show import print_json, say
    from minoots.cli.timer_request import person

    given = {"destination": destination, "secret": _read(secret), "overlap": overlap}
    body: dict[str, Any] = {"requestedBy": requested_by or person()}
    body |= {name: value for name, value in given.items() if value is not None}
    answer = Api.from_env(tenant=tenant).post("/signing-secrets", body)
    if as_json:
        print_json(answer)
        return
    made = json.loads(answer)
    say(made["secret"])
    typer.echo(
        f"this is the only time it is shown; {made['id']} signs the webhooks to "
        f"{made['destination'] or 'every destination without a secret of its own'} of the tenant {made['tenantId']}",
        err=True,
    )


@app.command("list")
def list_secrets(tenant: Tenant = None, as_json: AsJson = False) -> None:
    """List the secrets that sign, the newest first; the secrets themselves are not shown."""
    import json

    from minoots.cli.client import Api
    from minoots.cli.exits import printable
    from minoots.cli.show import lean_table, print_json, print_table, say
    from minoots.cli.words import instant, local

    api, items = Api.from_env(tenant=tenant), []
    page: dict[str, Any] = {"nextCursor": ""}
    while (cursor := page["nextCursor"]) is not None:
        paging = [("limit", "500"), *([("cursor", cursor)] if cursor else [])]
        page = json.loads(api.get("/signing-secrets", paging))
        items += page["items"]
    if as_json:
        print_json(json.dumps({"items": items, "nextCursor": None}).encode())
        return
    if not items:
        say("no secrets, so webhooks go out unsigned; make one: minoots secret create")
        return
    table = lean_table("ID", "SIGNS UNTIL", "CREATED", "BY", "DESTINATION")
    for item in items:
        created, ends = instant(item["createdAt"]), instant(item["expiresAt"])
        cells = (
            item["id"],
            local(ends) if ends else "–",
            local(created) if created else "–",
            item["createdBy"],
            item["destination"] or "every other one",
        )
        table.add_row(*(printable(str(cell)) for cell in cells))
    print_table(table)


@app.command()
def revoke(
    secret_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],
    tenant: Tenant = None,
    as_json: AsJson = False,
) -> None:
    """Let a secret sign no more, its overlap included; when it was the only one, webhooks go out unsigned."""
    import json

    from minoots.cli.client import Api, secret_path
    from minoots.cli.show import print_json, say

    answer = Api.from_env(tenant=tenant).delete(secret_path(secret_id))
    if as_json:
        print_json(answer)
    else:
        say(f"{json.loads(answer)['id']} signs no more")


@app.command()
def rewrap() -> None:
    """Wrap all stored secrets with the first key of MINOOTS_SECRETS_KEY, straight in the database.

    To change the key: put the new one before the old one wherever it is set, restart, run this, take the old one away.
    """
    import asyncio
    import os

    from minoots.access.keyring import load_keyring
    from minoots.errors import ConfigError
    from minoots.service.secrets import SigningSecrets
    from minoots.settings import Settings
    from minoots.store.database import Database

    settings = Settings.from_env(os.environ)
    if settings.secrets_key is None:
        raise ConfigError("set MINOOTS_SECRETS_KEY to the new key and the old one, separated by a comma")
    keyring = load_keyring(settings.env, settings.secrets_key)

    async def run() -> tuple[int, int]:
        async with Database(settings.store) as database:
            return await SigningSecrets(database, keyring).rewrap()

    done, lost = asyncio.run(run())
    typer.echo(f"{done} wrapped anew")
    if lost:
        raise ConfigError(
            f"{lost} cannot be unwrapped: none of the keys in MINOOTS_SECRETS_KEY wrapped them, or they were changed"
        )


def _read(given: str | None) -> str | None:
    """A command line is seen by every user of the machine, standard input is not."""
    return sys.stdin.readline().strip() if given == "-" else given
