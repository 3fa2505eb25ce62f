"""A process that serves collects seldom, and never looks again at what was there when it began."""

import gc
from collections.abc import Iterator

import pytest

from payments_ledger.process.garbage_collection import ALLOCATIONS_BETWEEN_COLLECTIONS, collect_seldom


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_is_there_is_never_looked_at_again() -> None:
    imported: list[object] = []
    collect_seldom()
    assert gc.get_freeze_count() > 0
    made_later: list[object] = []
    looked_at = {id(thing) for thing in gc.get_objects()}
    assert (id(imported) in looked_at, id(made_later) in looked_at) == (False, True)


def test_a_collection_comes_after_many_allocations_and_still_comes() -> None:
    collect_seldom()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == ALLOCATIONS_BETWEEN_COLLECTIONS
