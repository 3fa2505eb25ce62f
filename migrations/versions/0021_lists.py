"""What lists of payments are read from."""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None

# Made after the migration, CONCURRENTLY (schema/indexes.py): a million payments would keep writers for two seconds.
INDEXES = {
    "payment_intents_by_time": "payment_intents (tenant_id, created_at, id)",
    "payment_intents_by_customer": "payment_intents (tenant_id, customer_ref, created_at, id)",
}


def upgrade() -> None:
    op.get_context().opts["run_sql"](Path(__file__).with_suffix(".sql"))
