"""Takes out one guard after the other, in a copy of the repository, and tells which tests notice.

scripts/mutation.sh [part of a guard's name …] prints a table; its exit status is 1 if a guard can go unnoticed.

Long because it is the table of the guards.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS_MAX = 600
SHOWN_MAX = 2


@dataclass(frozen=True)
class Mutation:
    """A guard, how it is taken out, and the tests that are to fail without it (arguments of pytest)."""

    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SCHEMA = "migrations/versions/0001_books.sql"
PARTITIONS = "migrations/versions/0012_guarded_partitions.sql"
BOOKS_REST_ON = "migrations/versions/0013_currencies.sql"
FACTS = "migrations/versions/0015_captures_and_refunds.sql"
BOOK_DATES = "migrations/versions/0018_book_dates.sql"
LEDGER_PRODUCT = "migrations/versions/0017_ledger_product.sql"
SOURCE = "src/payments_ledger"
TRANSACTIONS = f"{SOURCE}/ledger/transactions"

MUTATIONS = [
    Mutation(
        "A payment settles once: the entry is unique",
        SCHEMA,
        "PRIMARY KEY (tenant_id, posted_at, id),\n    UNIQUE (tenant_id, source_id, kind)",
        "PRIMARY KEY (tenant_id, posted_at, id)",
        ("tests/integration/schema/test_schema.py",),
    ),
    Mutation(
        "A move is legal: checked by the rules",
        f"{SOURCE}/payments/payment.py",
        "if move is None:",
        "if False:",
        ("tests/unit/payments", "tests/integration/payments/test_use_cases.py"),
    ),
    Mutation(
        "A move is legal: checked by the update's trigger",
        "migrations/versions/0014_payment_moves.sql",
        "CREATE TRIGGER payment_moves_as_listed BEFORE UPDATE ON",
        "CREATE TRIGGER payment_moves_as_listed BEFORE UPDATE OF tenant_id ON",
        ("tests/integration/schema/test_schema.py", "-k", "moves or changed or listed or illegal"),
    ),
    Mutation(
        "No more is captured than was authorized: checked by PostgreSQL",
        FACTS,
        "AND capture_method = 'manual' AND amount_captured BETWEEN 1 AND amount)",
        "AND capture_method = 'manual')",
        ("tests/integration/payments/test_guards.py", "-k", "change_like_this"),
    ),
    Mutation(
        "No more is captured than was authorized: checked by the rules",
        f"{SOURCE}/payments/payment.py",
        "if amount is not None and amount > self.money.amount:",
        "if False:",
        ("tests/unit/payments", "tests/integration/payments/test_captures.py"),
    ),
    Mutation(
        "What waits for its capture is not settled: checked by PostgreSQL",
        FACTS,
        "OR amount_captured IS NOT NULL AND amount_settled IS NOT DISTINCT FROM amount_captured)",
        "OR true)",
        ("tests/integration/payments/test_guards.py", "-k", "change_like_this"),
    ),
    Mutation(
        "What waits for its capture is not settled: checked by the rules",
        f"{SOURCE}/payments/payment.py",
        'if self.awaits_capture:\n            raise IllegalMove("The payment waits',
        'if False:\n            raise IllegalMove("The payment waits',
        ("tests/unit/payments", "tests/integration/payments/test_captures.py"),
    ),
    Mutation(
        "No more is refunded than was settled: checked by PostgreSQL",
        FACTS,
        "AND amount_refunded <= coalesce(amount_captured, amount))",
        ")",
        ("tests/integration/payments/test_guards.py",),
    ),
    Mutation(
        "No more is refunded than was settled: checked by the rules",
        f"{SOURCE}/payments/payment.py",
        "if not 0 < given_back <= self.amount_refundable:",
        "if False:",
        ("tests/unit/payments", "tests/integration/refunds/test_routes.py"),
    ),
    Mutation(
        "The refunds of a payment add up",
        FACTS,
        "WHERE refunds.amount <> payment.amount_refunded OR NOT refunds.same_currency)",
        "WHERE false)",
        ("tests/integration/payments/test_guards.py", "-k", "add_up"),
    ),
    Mutation(
        "An entry that gives money back has its refund",
        FACTS,
        "WHEN (NEW.kind = 'refund')",
        "WHEN (false)",
        ("tests/integration/payments/test_guards.py", "-k", "without_its_refund"),
    ),
    Mutation(
        "A refund's reference is used once",
        f"{SOURCE}/refunds/use_cases.py",
        "if command.reference and (command.tenant_id, command.reference) in taken:",
        "if False:",
        ("tests/integration/refunds/test_routes.py", "-k", "reference"),
    ),
    Mutation(
        "Nothing moves after its expiry: checked by PostgreSQL",
        FACTS,
        "AND same_capture AND same_refunds AND has_expired = is_expiry",
        "AND same_capture AND same_refunds",
        ("tests/integration/payments/test_guards.py", "-k", "change_like_this"),
    ),
    Mutation(
        "Nothing moves after its expiry: checked by the rules",
        f"{SOURCE}/payments/payment.py",
        "if self.has_expired(at):\n            raise PaymentExpired",
        "if False:\n            raise PaymentExpired",
        ("tests/unit/payments", "tests/integration/payments/test_endings.py"),
    ),
    Mutation(
        "A payment's terms are fixed",
        FACTS,
        "CREATE TRIGGER payment_terms_are_fixed BEFORE UPDATE ON",
        "CREATE TRIGGER payment_terms_are_fixed BEFORE UPDATE OF version ON",
        ("tests/integration/payments/test_guards.py", "-k", "terms"),
    ),
    Mutation(
        "A repeated settlement is told from the first",
        f"{SOURCE}/payments/payment.py",
        "if to is self.status:",
        "if False and to is self.status:",
        ("tests/unit/payments", "tests/integration/payments/test_use_cases.py"),
    ),
    Mutation(
        "A payment is locked before it is decided on",
        f"{SOURCE}/payments/queries.py",
        "        FOR NO KEY UPDATE OF payment_intents\n",
        "",
        ("tests/integration/payments/test_use_cases.py", "tests/integration/orders/test_use_cases.py"),
    ),
    Mutation(
        "Publishing waits for the broker's confirm",
        f"{SOURCE}/rabbitmq/publisher.py",
        "            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)",
        "            channel = await self._connection.channel(publisher_confirms=False)",
        ("tests/integration/rabbitmq/test_publisher.py", "-k", "reaches_no_queue or durable"),
    ),
    Mutation(
        "A message is acknowledged after its commit",
        f"{SOURCE}/rabbitmq/consumer.py",
        "            try:\n                await handle(find_handler(",
        "            await incoming.ack()\n            try:\n                await handle(find_handler(",
        ("tests/integration/rabbitmq/test_consumer.py", "-k", "acknowledged"),
    ),
    Mutation(
        "A dead letter is copied before it is acknowledged",
        f"{SOURCE}/rabbitmq/consumer.py",
        "                await bury(channel, self._queue, incoming, message, str(error))\n",
        "",
        ("tests/integration/rabbitmq/test_copies.py",),
    ),
    Mutation(
        "The idempotency record is in the payment's transaction",
        f"{SOURCE}/commit/idempotency.py",
        "    conn.defer(_insert_responses, to_store)\n",
        "",
        ("tests/integration/commit/test_idempotency.py",),
    ),
    Mutation(
        "Two transactions cannot both claim a key",
        f"{SOURCE}/commit/idempotency.py",
        "ELSE run_again('an answer was kept meanwhile') END",
        "ELSE false END",
        ("tests/integration/commit/test_idempotency.py",),
    ),
    Mutation(
        "Another request under a used key is refused",
        f"{SOURCE}/commit/idempotency.py",
        "    if its_fingerprint != key.fingerprint:",
        "    if False and its_fingerprint != key.fingerprint:",
        ("tests/integration/commit/test_idempotency.py",),
    ),
    Mutation(
        "The event is in the payment's transaction",
        f"{SOURCE}/payments/use_cases.py",
        "    defer_events(\n        conn, [event_of(change.what, change.payment, change.origin.trace) "
        "async for change in in_portions(changes)]\n    )\n",
        "",
        ("tests/integration/payments/test_use_cases.py",),
    ),
    Mutation(
        "A tenant sees its own rows: row-level security",
        SCHEMA,
        "        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);\n",
        "",
        ("tests/integration/schema/test_schema.py", "tests/integration/schema/test_row_level_security.py"),
    ),
    Mutation(
        "Row-level security binds the owner, too",
        SCHEMA,
        "        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);\n",
        "",
        ("tests/integration/schema/test_schema.py",),
    ),
    Mutation(
        "Debits equal credits in the totals",
        f"{SOURCE}/ledger/queries.py",
        "SELECT tenant_id, credit_account, currency, posted_at, book_date, 0, amount FROM posted",
        "SELECT tenant_id, credit_account, currency, posted_at, book_date, 0, amount - 1 FROM posted",
        ("tests/integration/payments/test_use_cases.py", "tests/integration/ledger/test_routes.py"),
    ),
    Mutation(
        "What is booked on another day than it was recorded is in the second fold",
        f"{SOURCE}/ledger/queries.py",
        "WHERE book_date IS NOT NULL\n",
        "WHERE false\n",
        ("tests/integration/ledger/test_book_dates.py", "tests/integration/ledger/reports"),
    ),
    Mutation(
        "Debits equal credits in every report",
        f"{SOURCE}/ledger/reports/report.py",
        "    if debits != credits_:\n",
        "    if False:\n",
        ("tests/unit/ledger/reports/test_report.py",),
    ),
    Mutation(
        "A cursor of a statement fits its account alone",
        f"{SOURCE}/ledger/reports/statement.py",
        "        if code != account:\n",
        "        if False:\n",
        ("tests/integration/ledger/reports/test_routes.py", "-k", "cursor"),
    ),
    Mutation(
        "A zone never changes",
        BOOK_DATES,
        "    WHEN (OLD.zone <> NEW.zone)\n",
        "    WHEN (false)\n",
        ("tests/integration/ledger/test_book_dates.py", "-k", "zone"),
    ),
    Mutation(
        "Nothing is dated ahead",
        BOOK_DATES,
        "CHECK (effective_at <= posted_at + interval '1 second')",
        "CHECK (true)",
        ("tests/integration/ledger/test_book_dates.py", "-k", "ahead"),
    ),
    Mutation(
        "A posting has two different accounts and an amount above zero",
        SCHEMA,
        "    CHECK (debit_account <> credit_account)\n",
        "    CHECK (true)\n",
        ("tests/integration/schema/test_schema.py", "-k", "posting"),
    ),
    Mutation(
        "Postings are never changed",
        SCHEMA,
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_postings\n",
        "BEFORE TRUNCATE ON ledger_postings\n",
        ("tests/integration/schema/test_schema.py",),
    ),
    Mutation(
        "Ledger: a limit holds, decided by the book",
        f"{TRANSACTIONS}/book.py",
        "            if balance.is_below_minimum:\n",
        "            if False:\n",
        ("tests/unit/ledger/transactions/test_book.py",),
    ),
    Mutation(
        "Ledger: a limit holds, checked by PostgreSQL",
        LEDGER_PRODUCT,
        "ELSE debits - credits - pending_credits END >= balance_min),",
        "ELSE debits - credits - pending_credits END >= balance_min OR true),",
        ("tests/integration/ledger/test_guards.py", "-k", "limit"),
    ),
    Mutation(
        "Ledger: a balance is locked before it is decided on",
        f"{SOURCE}/ledger/balances/queries.py",
        "            ORDER BY account, currency\n            FOR NO KEY UPDATE OF account_balances\n",
        "            ORDER BY account, currency\n",
        ("tests/integration/ledger/transactions/test_routes.py", "-k", "random_transfers"),
    ),
    Mutation(
        "Ledger: a hold ends once, decided by the book",
        f"{TRANSACTIONS}/book.py",
        "        if hold.status is not Status.PENDING:\n",
        "        if False:\n",
        ("tests/unit/ledger/transactions/test_book.py",),
    ),
    Mutation(
        "Ledger: a hold ends once, checked by PostgreSQL",
        LEDGER_PRODUCT,
        "CREATE TRIGGER holds_end_once BEFORE UPDATE ON",
        "CREATE TRIGGER holds_end_once BEFORE UPDATE OF tenant_id ON",
        ("tests/integration/ledger/test_guards.py", "-k", "limit"),
    ),
    Mutation(
        "Ledger: a hold whose time is over no longer counts",
        f"{TRANSACTIONS}/transaction.py",
        "            return self.expires_at is not None and self.expires_at <= now\n",
        "            return False\n",
        ("tests/unit/ledger/transactions/test_book.py",),
    ),
    Mutation(
        "Ledger: a reference is taken once, also by two at once",
        f"{TRANSACTIONS}/queries.py",
        "WHERE run_again('the reference was taken meanwhile')",
        "WHERE false",
        ("tests/integration/ledger/transactions/test_use_cases.py", "-k", "reference"),
    ),
    Mutation(
        "Ledger: a transaction is reversed once, checked by PostgreSQL",
        LEDGER_PRODUCT,
        "CREATE UNIQUE INDEX ledger_transactions_by_reversed",
        "CREATE INDEX ledger_transactions_by_reversed",
        ("tests/integration/ledger/test_guards.py", "-k", "bounds"),
    ),
    Mutation(
        "Ledger: an atomic batch that is refused is forgotten",
        f"{TRANSACTIONS}/use_cases.py",
        "    within = book.fork() if command.is_atomic else book\n",
        "    within = book\n",
        ("tests/integration/ledger/transactions/test_use_cases.py",),
    ),
    Mutation(
        "Ledger: who posts holds its accounts open",
        f"{SOURCE}/ledger/chart/queries.py",
        'sql.SQL("FOR UPDATE" if alone else "FOR KEY SHARE")',
        'sql.SQL("FOR UPDATE" if alone else "FOR UPDATE SKIP LOCKED")',
        ("tests/integration/ledger/test_guards.py", "-k", "closing"),
    ),
    Mutation(
        "Ledger: nothing is posted to a closed account, checked by PostgreSQL",
        LEDGER_PRODUCT,
        "(NEW.debit_account, NEW.credit_account) AND closed_at IS NOT NULL)",
        "(NEW.debit_account, NEW.credit_account) AND false)",
        ("tests/integration/ledger/test_guards.py", "-k", "limit"),
    ),
    Mutation(
        "Ledger: an account is closed when it is empty, checked by PostgreSQL",
        LEDGER_PRODUCT,
        "    WHEN (OLD.closed_at IS NULL AND NEW.closed_at IS NOT NULL)\n",
        "    WHEN (false)\n",
        ("tests/integration/ledger/test_guards.py", "-k", "limit"),
    ),
    Mutation(
        "Ledger: the event is in the transaction's transaction",
        f"{TRANSACTIONS}/use_cases.py",
        "    defer_events(conn, [event_of(change, origin.trace, now) async for change, "
        "origin in in_portions(written)])\n",
        "",
        ("tests/integration/ledger/transactions/test_routes.py", "-k", "event"),
    ),
    Mutation(
        "Ledger: a tenant sees its own rows",
        LEDGER_PRODUCT,
        "        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);\n",
        "",
        ("tests/integration/schema/test_schema.py", "-k", "forced"),
    ),
    Mutation(
        "Orders are never deleted",
        BOOKS_REST_ON,
        "CREATE TRIGGER orders_stay BEFORE DELETE OR TRUNCATE ON orders\n",
        "CREATE TRIGGER orders_stay BEFORE TRUNCATE ON orders\n",
        ("tests/integration/schema/test_schema.py", "-k", "orders"),
    ),
    Mutation(
        "A currency's exponent never changes",
        BOOKS_REST_ON,
        "    WHEN ((OLD.code, OLD.exponent) IS DISTINCT FROM (NEW.code, NEW.exponent))\n",
        "    WHEN (OLD.code IS DISTINCT FROM NEW.code)\n",
        ("tests/integration/ledger/test_currencies.py", "-k", "means"),
    ),
    Mutation(
        "Currencies are never deleted",
        BOOKS_REST_ON,
        "CREATE TRIGGER currencies_stay BEFORE DELETE OR TRUNCATE ON currencies\n",
        "CREATE TRIGGER currencies_stay BEFORE TRUNCATE ON currencies\n",
        ("tests/integration/ledger/test_currencies.py", "-k", "means"),
    ),
    Mutation(
        "The login user writes no currencies",
        BOOKS_REST_ON,
        "ALTER TABLE currencies FORCE ROW LEVEL SECURITY;\n",
        "",
        (
            "tests/integration/ledger/test_currencies.py",
            "tests/integration/schema/test_schema.py",
            "-k",
            "login_user or forced",
        ),
    ),
    Mutation(
        "A new payment is in a currency of the table",
        BOOKS_REST_ON,
        "WHERE currencies.code IS NULL OR currencies.valid_until <",
        "WHERE currencies.valid_until <",
        ("tests/integration/ledger/test_currencies.py", "-k", "postgresql_refuses"),
    ),
    Mutation(
        "A new payment is in a currency that is in use: checked by PostgreSQL",
        BOOKS_REST_ON,
        "WHERE currencies.code IS NULL OR currencies.valid_until < (added.created_at AT TIME ZONE 'UTC')::date\n",
        "WHERE currencies.code IS NULL\n",
        ("tests/integration/ledger/test_currencies.py", "-k", "postgresql_refuses"),
    ),
    Mutation(
        "A new payment is in a currency that is in use: checked by the rules",
        f"{SOURCE}/money.py",
        "    if valid_until is not None and day > valid_until:\n",
        "    if False:\n",
        ("tests/integration/ledger/test_currencies.py", "-k", "withdrawn"),
    ),
    Mutation(
        "A lost COMMIT is never called a failure",
        f"{SOURCE}/postgres/database.py",
        "                commits = True\n",
        "",
        ("tests/faults/test_commits.py",),
    ),
    Mutation(
        "A session that ends after COMMIT was sent is an unknown outcome, noticed or not",
        f"{SOURCE}/postgres/database.py",
        "            if not connection.broken and not _is_loss(error, self._losses):\n",
        "            if not connection.broken:\n",
        ("tests/faults/test_commits.py",),
    ),
    Mutation(
        "Audit rows are never changed through a partition: rows",
        PARTITIONS,
        "CREATE TRIGGER audit_rows_are_facts BEFORE UPDATE OR DELETE ON audit_log\n",
        "CREATE TRIGGER audit_rows_are_facts BEFORE INSERT ON audit_log WHEN (false)\n",
        ("tests/integration/schema/test_schema.py", "-k", "guard"),
    ),
    Mutation(
        "Nobody changes a partition by itself: statements",
        PARTITIONS,
        "partition_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON %I\n",
        "partition_stays BEFORE UPDATE OR DELETE ON %I\n",
        ("tests/integration/schema/test_schema.py", "-k", "partition"),
    ),
    Mutation(
        "Row-level security is forced on every partition",
        PARTITIONS,
        "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ENABLE ROW LEVEL SECURITY",
        ("tests/integration/schema/test_schema.py", "-k", "partition"),
    ),
    Mutation(
        "A partition that is made later is guarded, too",
        PARTITIONS,
        "    PERFORM guard_partition(its.made), vacuum_often(its.made);\n    RETURN true;\n",
        "    PERFORM vacuum_often(its.made);\n    RETURN true;\n",
        ("tests/integration/schema/test_retention.py",),
    ),
    Mutation(
        "The owner changes no delivery of an event",
        PARTITIONS,
        "    WHEN (is_own('outbox_events')) EXECUTE",
        "    WHEN (false) EXECUTE",
        ("tests/integration/schema/test_schema.py", "-k", "delivery"),
    ),
    Mutation(
        "What is written to the rest while a month is divided out of it is not lost",
        PARTITIONS,
        "    EXECUTE format('INSERT INTO %I SELECT ($1).* ON CONFLICT %s', TG_ARGV[0], TG_ARGV[1]) USING NEW;\n",
        "",
        ("tests/integration/schema/test_retention.py", "-k", "divided"),
    ),
    Mutation(
        "Counts of payments are summed up in portions",
        f"{SOURCE}/payments/queries.py",
        "            ORDER BY tenant_id, id\n            LIMIT %s\n",
        "            ORDER BY tenant_id, id\n            LIMIT %s * 100\n",
        ("tests/integration/payments/test_gauges.py", "-k", "portions"),
    ),
    Mutation(
        "What a part that failed was to write is not written",
        f"{SOURCE}/postgres/database.py",
        "                    self.deferred.clear()\n",
        "                    pass\n",
        ("tests/integration/postgres/test_database.py",),
    ),
    Mutation(
        "What is known of a caller is never older than two seconds",
        f"{SOURCE}/access/access_cache.py",
        "(age := time.monotonic() - entry.as_of) < STALE_SECONDS_MAX:",
        "(age := time.monotonic() - entry.as_of) < 3600:",
        ("tests/unit/access/test_access_cache.py",),
    ),
    Mutation(
        "What an administrator changes asks the database who they are",
        f"{SOURCE}/tenants/administration.py",
        "                await require_right(conn, command.administrator, command.tenant_id)\n                # What",
        "                # What",
        ("tests/integration/tenants/test_rogue_administrators.py",),
    ),
    Mutation(
        "One bad command harms only itself",
        f"{SOURCE}/commit/group_commit.py",
        "            if len(batch) == 1:\n",
        "            if True:\n",
        ("tests/unit/commit/test_group_commit.py",),
    ),
    Mutation(
        "A client that hangs up leaves its command in the batch",
        f"{SOURCE}/commit/group_commit.py",
        "def _resolve(waiting: _Waiting, outcome: Any) -> None:\n    if waiting.outcome.done():\n",
        "def _resolve(waiting: _Waiting, outcome: Any) -> None:\n    if False:\n",
        ("tests/unit/commit/test_group_commit.py",),
    ),
    Mutation(
        "Events of a payment are published in their order",
        f"{SOURCE}/delivery/queries.py",
        "AND earlier.sequence < due.sequence AND earlier.published_at IS NULL)",
        "AND earlier.sequence < due.sequence AND earlier.published_at IS NULL AND false)",
        ("tests/integration/delivery/test_relay.py",),
    ),
    Mutation(
        "A month with an event that was never published is not dropped",
        f"{SOURCE}/schema/retention.py",
        "if table != OUTBOX:\n            return False",
        "if True:\n            return False",
        ("tests/integration/schema/test_retention.py",),
    ),
    Mutation(
        "Two relays never hold the same event",
        f"{SOURCE}/delivery/queries.py",
        "        FOR NO KEY UPDATE OF due SKIP LOCKED\n",
        "",
        ("tests/integration/delivery/test_relay.py",),
    ),
    Mutation(
        "What the broker lost is published again",
        f"{SOURCE}/delivery/reminder.py",
        "                await queries.publish_again(conn, forgotten)",
        "                pass",
        ("tests/integration/delivery/test_relay.py", "-k", "lost"),
    ),
    Mutation(
        "A consumer notices that its queue was deleted",
        f"{SOURCE}/rabbitmq/consumer.py",
        "on_consumer_cancel_callbacks.add(lambda _: lost.set())",
        "on_consumer_cancel_callbacks.add(lambda _: None)",
        ("tests/integration/rabbitmq/test_consumer.py",),
    ),
    Mutation(
        "A publisher declares a lost binding anew",
        f"{SOURCE}/rabbitmq/publisher.py",
        "        if any(map(self._lacks_its_queue, messages, deliveries)):",
        "        if False:",
        ("tests/integration/rabbitmq/test_publisher.py",),
    ),
    Mutation(
        "The database's clock dates everything",
        f"{SOURCE}/postgres/database.py",
        "conn.began_at = row[0]",
        "conn.began_at = datetime.now().astimezone()",
        ("tests/faults/test_processes_and_clients.py", "-k", "clock"),
    ),
    Mutation(
        "Failpoints never strike in production",
        f"{SOURCE}/process/production.py",
        '        yield "FAILPOINTS is for tests"\n',
        "        pass\n",
        ("tests/unit/process/test_production.py",),
    ),
    Mutation(
        "Production refuses secrets that repeat themselves",
        f"{SOURCE}/process/production.py",
        "if _bits(text) < SECRET_BITS_MIN:",
        "if False:",
        ("tests/unit/process/test_production.py",),
    ),
    Mutation(
        "Production refuses passwords that everybody knows",
        f"{SOURCE}/process/production.py",
        "        elif _has_known_password(parts):",
        "        elif False:",
        ("tests/unit/process/test_production.py",),
    ),
    Mutation(
        "Production trusts no large part of the internet, in whatever pieces",
        f"{SOURCE}/process/production.py",
        "for network in collapse_addresses(of_family) if not network.is_private",
        "for network in of_family if network.prefixlen == 0",
        ("tests/unit/process/test_production.py",),
    ),
    Mutation(
        "Production is not seeded",
        f"{SOURCE}/cli/database.py",
        'if settings.app_env == "production":',
        "if False:",
        ("tests/acceptance/cli/test_terminal.py", "-k", "seeded"),
    ),
    Mutation(
        "The edge: a trailer is no header",
        f"{SOURCE}/web/http_edge.py",
        "        if self._in_head:\n            self._count(size, HEAD_BYTES_MAX, HEAD_TOO_LARGE)",
        "        if True:\n            self._count(size, HEAD_BYTES_MAX, HEAD_TOO_LARGE)",
        ("tests/unit/web/test_http_edge.py",),
    ),
    Mutation(
        "The edge: what has no end is cut off",
        f"{SOURCE}/web/http_edge.py",
        "if self._unheard_bytes > (HEAD_BYTES_MAX if self._in_head else TRAILER_BYTES_MAX):",
        "if False:",
        ("tests/unit/web/test_http_edge.py",),
    ),
    Mutation(
        "The edge: an upgrade is refused",
        f"{SOURCE}/web/http_edge.py",
        "if self.parser.should_upgrade():",
        "if False:",
        ("tests/unit/web/test_http_edge.py",),
    ),
    Mutation(
        "The edge: requests do not queue up without end",
        f"{SOURCE}/web/http_edge.py",
        "if self._unanswered == PIPELINED_MAX:",
        "if False:",
        ("tests/unit/web/test_http_edge.py",),
    ),
    Mutation(
        "The edge: a refusal comes after the responses before it",
        f"{SOURCE}/web/http_edge.py",
        "if self._unanswered > (begun is not None) or self.transport.is_closing():",
        "if self.transport.is_closing():",
        ("tests/unit/web/test_http_edge.py",),
    ),
]


def failing_tests(mutation: Mutation) -> list[str]:
    """The tests that notice, of those that are to; raises RuntimeError if pytest could not even begin."""
    with tempfile.TemporaryDirectory(prefix="ledger-mutation-") as folder:
        copy = Path(folder) / "copy"
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in files.splitlines():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
        mutated = copy / mutation.file
        text = mutated.read_text()
        if text.count(mutation.old) != 1:
            raise RuntimeError(f"{mutation.guard}: {mutation.file} has changed, and with it how the guard is taken out")
        mutated.write_text(text.replace(mutation.old, mutation.new))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", *mutation.tests],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy / "src")},
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutation.guard}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        return [line.split(" ", 1)[1].split(" - ")[0] for line in lines]


def main(names: list[str]) -> int:
    out = sys.stdout
    out.write("| guard that is taken out | test that fails |\n|---|---|\n")
    unnoticed = 0
    for mutation in MUTATIONS:
        if names and not any(name.lower() in mutation.guard.lower() for name in names):
            continue
        failed = failing_tests(mutation)
        unnoticed += not failed
        shown = "<br>".join(f"`{name}`" for name in failed[:SHOWN_MAX]) or "**none**"
        out.write(f"| {mutation.guard} | {shown} |\n")
        out.flush()
    return 1 if unnoticed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
