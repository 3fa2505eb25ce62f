"""The role finance, and the permissions to refund and to write the ledger."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
