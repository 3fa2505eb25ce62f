"""Each guard of scripts/check_house.py finds a planted offence, and nothing in the same files without it."""

import ast
from pathlib import Path

import pytest

from scripts.check_house import GUARDS, LINES_MAX, PACKAGE, ROOT, longest_first

LONG = "\n".join(f"A{number} = {number}" for number in range(LINES_MAX))
BRANCHES = "\n".join(f"    if number == {number}:\n        return {number}" for number in range(11))
STATEMENTS = "\n".join(f"    number += {number}" for number in range(41))
FUNCTION = '"""A module."""\n\n\ndef pay() -> int:\n    """One."""\n    return 1\n'

# The guard, the file in question, an offence, and the same file without it.
OFFENCES = [
    ("complexity", "src/a.py", f"def pay(number: int) -> int:\n{BRANCHES}\n    return 0\n", FUNCTION),
    ("complexity", "tests/a.py", f"def pay(number: int) -> int:\n{STATEMENTS}\n    return number\n", FUNCTION),
    ("docstrings", "src/a.py", '"""A module."""\n\n\ndef pay() -> int:\n    return 1\n', FUNCTION),
    ("docstrings", "src/a.py", '"""A module."""\n\n\nclass Payment:\n    pass\n', FUNCTION),
    ("docstrings", "src/a.py", FUNCTION.replace("One.", "One"), FUNCTION),
    ("docstrings", "src/a.py", FUNCTION.replace('"""A module."""', "A = 1"), FUNCTION),
    ("dead-code", "src/a.py", FUNCTION, FUNCTION + "\n\npay()\n"),
    ("dead-code", "bench/a.py", "import os\n", "import os\n\nos.getcwd()\n"),
    ("long-files", "src/a.py", f'"""Says nothing."""\n{LONG}\n', f'"""Long because it lists."""\n{LONG}\n'),
    ("long-files", "tests/a.py", f"{LONG}\nB = 1\n", LONG),
    ("missing-tests", f"{PACKAGE}/orders/consumer.py", FUNCTION, "A = 1\n"),
    ("slow-files", "tests/conftest.py", 'LONGEST_FIRST = ("unit/test_gone.py",)\n', "LONGEST_FIRST = ()\n"),
]


@pytest.mark.parametrize(("guard", "name", "offence", "harmless"), OFFENCES)
def test_a_planted_offence_is_found_and_nothing_without_it(
    guard: str, name: str, offence: str, harmless: str, tmp_path: Path
) -> None:
    assert [name in found for found in offences(guard, tmp_path, **{name: offence})] == [True]
    assert offences(guard, tmp_path, **{name: harmless}) == []


@pytest.mark.parametrize("name", ["platform.py", "redis.py", "requests.py", "commit/logging.py", "http/__init__.py"])
def test_a_name_that_is_taken_is_found(name: str, tmp_path: Path) -> None:
    assert len(offences("shadowing-names", tmp_path, **{f"{PACKAGE}/{name}": ""})) == 1


@pytest.mark.parametrize(
    "name", ["money.py", "payments/use_cases.py", "ledger/__init__.py", "web/routes.py", "demo/dev.py"]
)
def test_a_name_of_our_own_is_none(name: str, tmp_path: Path) -> None:
    assert offences("shadowing-names", tmp_path, **{f"{PACKAGE}/{name}": ""}) == []


@pytest.mark.parametrize("test", ["unit/orders/test_consumer.py", "integration/orders/test_consumer.py"])
def test_a_test_file_on_any_level_mirrors_its_module(test: str, tmp_path: Path) -> None:
    files = {f"{PACKAGE}/orders/consumer.py": FUNCTION, f"tests/{test}": ""}
    assert offences("missing-tests", tmp_path, **files) == []


def test_a_module_of_queries_is_tested_through_its_use_cases(tmp_path: Path) -> None:
    module = {f"{PACKAGE}/orders/queries.py": FUNCTION}
    assert len(offences("missing-tests", tmp_path, **module)) == 1
    assert offences("missing-tests", tmp_path, **module, **{"tests/integration/orders/test_use_cases.py": ""}) == []


def test_what_only_tests_use_is_dead(tmp_path: Path) -> None:
    files = {"src/a.py": FUNCTION, "tests/test_a.py": "from a import pay\n\npay()\n"}
    assert len(offences("dead-code", tmp_path, **files)) == 1


def test_a_linter_that_cannot_run_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        offences("dead-code", tmp_path)


def test_the_order_of_slow_files_is_read_from_the_real_conftest() -> None:
    assert longest_first(ast.parse((ROOT / "tests/conftest.py").read_text()))


def offences(guard: str, root: Path, **files: str) -> list[str]:
    (root / "tests").mkdir(exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return list(GUARDS[guard](root))
