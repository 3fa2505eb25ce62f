"""Processes that lost the time: a clock ten minutes off, and a halt beyond every lease that somebody gave them."""

import random
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from payments_ledger.platform.failpoints import Place
from tests.faults.oracle import judge
from tests.faults.system import System, eventually


def test_a_clock_ten_minutes_off_dates_nothing_and_harms_nothing(system: System, seed: int) -> None:
    choice = random.Random(f"{seed} clocks")
    system.apis[1].restart(minutes_off=10)
    system.workers[0].restart(minutes_off=10)
    system.workers[1].restart(minutes_off=-10)
    system.heal()
    shown = parsedate_to_datetime(httpx.get(f"{system.base_urls[1]}/healthz").headers["Date"])
    assert shown - datetime.now(UTC) > timedelta(minutes=9)
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    eventually(lambda: len(load.record.payments) > 40, "some payments")
    verdict = judge(system, load.finish())
    for process in (system.apis[1], *system.workers):
        process.kill()
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    with system.owner() as conn:
        dated = conn.execute(
            """
            SELECT count(*) FILTER (WHERE created_at > now() OR updated_at > now() OR updated_at < created_at),
                   count(*) FILTER (WHERE created_at < now() - interval '9 minutes')
            FROM payment_intents WHERE customer_ref = ANY (%s)
            """,
            [[payment.reference for payment in load.record.payments]],
        ).fetchone()
    assert dated == (0, 0)


def test_a_worker_that_stood_still_beyond_every_lease_finds_its_work_done_by_the_other(
    system: System, seed: int
) -> None:
    """It stops while it holds claimed events and unacknowledged messages. Then broker and database give it up."""
    choice = random.Random(f"{seed} leases")
    stopped = system.workers[0]
    held = (Place.RELAY_AFTER_CONFIRM, Place.BATCH_BEFORE_COMMIT, Place.CONSUMER_BEFORE_ACK)
    stopped.restart(failpoints=",".join(f"{place.value}=delay:400" for place in held))
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    eventually(lambda: system.count_in_transaction() > 0, "a transaction is held up")
    time.sleep(choice.uniform(0, 0.5))
    stopped.pause()
    # The broker closes the connection after two heartbeats, the database a transaction that idles for 30 seconds: that
    # end is brought about here.
    time.sleep(7)
    system.postgres.terminate_sessions()
    stopped.resume()
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    assert stopped.is_alive
