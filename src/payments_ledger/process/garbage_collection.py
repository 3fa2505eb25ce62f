"""The garbage collector's pace in a process that serves: it need not look at what stays for ever.

Hand-optimised (ADR 33): see below for what it gained. It may be deleted once the interpreter in use collects in small
steps; until then tests/integration/postgres/test_array_literals.py shows that a payment leaves no cycles.
"""

import gc

# Python's default is some hundreds. A request leaves hardly any cycles behind, and a look at the young objects costs
# the same whether it finds one or not: at this pace collecting falls from a tenth of a request's time to a hundredth.
ALLOCATIONS_BETWEEN_COLLECTIONS = 20_000


def collect_seldom() -> None:
    """To be called once, when everything is imported: what is there now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 20)
