"""Partitions guarded like their tables, and months divided out of the rest in portions."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
