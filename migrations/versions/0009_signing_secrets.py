"""The secrets that webhooks are signed with."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


SECRETS = [
    r"""create table minoots.signing_secrets (
           tenant_id text not null,
           secret_id uuid not null default minoots.uuid7(),
           destination text,
           wrapped bytea not null,
           created_at timestamptz not null default minoots.now(),
           expires_at timestamptz,
           tenant_until timestamptz,
           created_by text not null default current_user,
           constraint signing_secrets_pkey primary key (tenant_id, secret_id),
           constraint signing_secrets_tenant_id check (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_:@-]{0,127}$'),
           -- as the doors write it: what is written otherwise would never be found
           constraint signing_secrets_destination check (
               destination = lower(destination) and destination ~ '^https?://[^/?#]+$'
               and destination !~ '^(http://.*:80|https://.*:443)$' and char_length(destination) <= 2048),
           -- key id, nonce and tag around 24 to 64 bytes
           constraint signing_secrets_wrapped check (octet_length(wrapped) between 57 and 256),
           constraint signing_secrets_created_by check (char_length(created_by) between 1 and 200),
           constraint signing_secrets_instants check (
               created_at < '9000-01-01 00:00:00+00' and (expires_at is null or expires_at < '9000-01-01 00:00:00+00')
               and (tenant_until is null or tenant_until < '9000-01-01 00:00:00+00')))""",
    # One is current, and the others end: what comes in the place of the current one has to retire it.
    """create unique index signing_secrets_current on minoots.signing_secrets (tenant_id, destination)
           nulls not distinct where expires_at is null""",
    "create index signing_secrets_by_destination on minoots.signing_secrets (tenant_id, destination)",
    "create index signing_secrets_ending on minoots.signing_secrets (expires_at) where expires_at is not null",
    """comment on table minoots.signing_secrets is
       'The secrets that webhooks are signed with (Standard Webhooks). All that have not expired sign; those of a destination come before those of the whole tenant. Made by REST, gRPC and `minoots secret`, because wrapping them takes the key from MINOOTS_SECRETS_KEY; deleting a row ends it within seconds.'""",
    "comment on column minoots.signing_secrets.tenant_id is 'Whose webhooks it signs.'",
    "comment on column minoots.signing_secrets.secret_id is 'A UUID of version 7.'",
    "comment on column minoots.signing_secrets.destination is 'The origin whose webhooks it signs, as deliveries.lane has it; null: every destination of the tenant without a secret of its own.'",
    "comment on column minoots.signing_secrets.wrapped is 'The secret, encrypted by AES-256-GCM: a byte for the form, 4 of the key''s id, 12 of nonce, ciphertext and tag.'",
    "comment on column minoots.signing_secrets.created_at is 'Since when it signs.'",
    "comment on column minoots.signing_secrets.expires_at is 'Until when it signs beside its successor; null: it is the current one.'",
    "comment on column minoots.signing_secrets.tenant_until is 'Until when the tenant''s own secrets sign beside it: the overlap of the first secret that a destination got.'",
    "comment on column minoots.signing_secrets.created_by is 'Who asked for it, as they said.'",
]


def upgrade() -> None:
    for statement in SECRETS:
        run(statement)


def downgrade() -> None:
    run("drop table minoots.signing_secrets")
