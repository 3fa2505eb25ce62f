"""The moves of a payment as a table that the trigger reads."""

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
