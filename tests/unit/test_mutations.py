"""Every guard of tests/mutations.py can still be taken out, and the tests that are to notice are there."""

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_a_guard_stands_where_its_row_says_and_its_tests_exist(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert [name for name in mutation.tests if name.startswith("tests/") and not (ROOT / name).exists()] == []
