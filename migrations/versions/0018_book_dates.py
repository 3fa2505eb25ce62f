"""The two times of an entry, and the zone that dates it."""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
