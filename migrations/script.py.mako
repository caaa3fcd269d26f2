"""${message}"""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
