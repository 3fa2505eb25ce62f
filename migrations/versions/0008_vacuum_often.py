"""Autovacuum where rows change soon after they were added."""

from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
