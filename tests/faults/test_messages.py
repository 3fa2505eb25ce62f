"""Messages as networks and strangers make them: twice, out of order, a day late, and poisoned."""

import random
import signal

from payments_ledger.platform.failpoints import Place
from payments_ledger.platform.rabbitmq import connected
from tests.faults.faults import POISON, messages_repeated_and_reordered, publish
from tests.faults.oracle import judge
from tests.faults.system import System, eventually


def test_messages_that_come_twice_out_of_order_or_a_day_late_settle_nothing_again(system: System, seed: int) -> None:
    choice = random.Random(f"{seed} messages")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    for _ in range(3):
        eventually(lambda: any(payment.confirmed for payment in load.record.payments), "some are confirmed")
        messages_repeated_and_reordered(system, choice)
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"


def test_poison_goes_to_the_dead_letters_and_holds_up_nobody_even_if_a_worker_is_killed_over_it(
    system: System, seed: int
) -> None:
    choice = random.Random(f"{seed} poison")
    url = system.rabbitmq.url
    system.background.run(_purge(url))
    system.workers[0].restart(failpoints=f"{Place.CONSUMER_AFTER_COPY.value}=kill@{choice.randint(1, 3)}")
    load = system.load(f"load-{choice.getrandbits(32):08x}", seed=choice.getrandbits(32))
    load.start()
    poisoned = 0

    def is_killed() -> bool:
        nonlocal poisoned
        system.background.run(publish(url, [("payment.authorized", body) for body in POISON]))
        poisoned += len(POISON)
        return not system.workers[0].is_alive

    eventually(is_killed, "killed with a copy among the dead letters and the original not acknowledged", pause=0.5)
    assert system.workers[0].wait() == -signal.SIGKILL
    system.heal()
    # The one it was killed over is there twice: at least once is what is promised.
    eventually(lambda: system.background.run(_count(url)) > poisoned, "all poison is among the dead letters")
    verdict = judge(system, load.finish())
    assert verdict.ok, f"{verdict}\n{system.logs()}"
    system.background.run(_purge(url))


async def _count(url: str) -> int:
    async with connected(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("payments.dlq", passive=True)
        return queue.declaration_result.message_count or 0


async def _purge(url: str) -> None:
    async with connected(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue("payments.dlq", ensure=False)
        await queue.purge()
