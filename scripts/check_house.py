"""The rules of the house: `python -m scripts.check_house [GUARD…]`, all of them by default.

Each guard is a function from the repository's folder to the offences it found. Exit status 1 if there is one.
What a linter knows is left to it; its limits stand in pyproject.toml.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/payments_ledger")
CODE = ("src", "tests", "bench", "scripts")
SHIPPED = ("src", "bench", "scripts")
# What fits into a reader's head in one sitting. A longer file says in its docstring why it is long ("Long because …").
LINES_MAX = 400
REASON = "long because"
# Packages that a reader knows, whether or not they are installed here.
WELL_KNOWN = frozenset({"celery", "django", "flask", "kombu", "pika", "requests", "sqlalchemy"})
# A room is called what it stands on (decision 40). Its files may not be.
ROOMS = frozenset({"redis"})
# Modules that need no test file of their own: that of the named sibling exercises every line of theirs.
TESTED_THROUGH = {"queries": "use_cases", "schemas": "routes"}
# Every public module, class and function says what it is; a method need not where its class and its name say it (D102).
# The form is checked as well; the mood of the first word (D401) is not.
DOCSTRING_RULES = "D100,D101,D103,D104,D2,D300,D4"
DOCSTRING_FORMS_LEFT_OPEN = "D203,D213,D400,D401,D404"


def complexity(root: Path) -> Iterator[str]:
    """No function is longer or more branched than ruff's limits."""
    yield from ruff(root, CODE, "--select", "C901,PLR0915")


def docstrings(root: Path) -> Iterator[str]:
    """Public modules, classes and functions of the package have docstrings."""
    yield from ruff(root, ("src",), "--select", DOCSTRING_RULES, "--ignore", DOCSTRING_FORMS_LEFT_OPEN)


def dead_code(root: Path) -> Iterator[str]:
    """Nothing is unused: neither in the whole repository, nor, but for its tests, in what it ships."""
    found: dict[str, None] = {}
    for folders in (CODE, SHIPPED):
        found |= dict.fromkeys(run(root, "vulture", "--config", str(ROOT / "pyproject.toml"), *present(root, folders)))
    yield from found


def ruff(root: Path, folders: Sequence[str], *options: str) -> list[str]:
    configuration = ("--config", str(ROOT / "pyproject.toml"), "--output-format", "concise", "--quiet", "--no-cache")
    return run(root, "ruff", "check", *configuration, *options, *present(root, folders))


def run(root: Path, program: str, *arguments: str) -> list[str]:
    """The lines that a linter prints; a linter that prints none and fails has not run at all."""
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    if done.returncode and not lines:
        raise RuntimeError(done.stderr)
    return lines


def present(root: Path, folders: Sequence[str]) -> list[str]:
    return [folder for folder in folders if (root / folder).is_dir()]


def long_files(root: Path) -> Iterator[str]:
    """A file beyond LINES_MAX lines says why in its docstring."""
    for path in python_files(root, *CODE):
        text = path.read_text()
        lines = text.count("\n")
        if lines > LINES_MAX and REASON not in (ast.get_docstring(ast.parse(text)) or "").lower():
            yield f"{path.relative_to(root)}: {lines} lines, and the docstring does not say 'Long because …'"


def shadowing_names(root: Path) -> Iterator[str]:
    """No module of ours has the name of one of Python's, or of a package that we or our readers use."""
    rooms = [folder for folder in folders_of(root / PACKAGE) if folder.name not in ROOMS]
    for path in [*python_files(root, str(PACKAGE)), *rooms]:
        if path.stem in taken_names():
            yield f"{path.relative_to(root)}: {path.stem} is the name of a well-known module"


@cache
def taken_names() -> frozenset[str]:
    # Some distributions also install a stray "tests" or "dev": only a package that is known by its name counts.
    installed = {name for name, owners in packages_distributions().items() if any(name in owner for owner in owners)}
    return (sys.stdlib_module_names | installed | WELL_KNOWN) - {PACKAGE.name}


def missing_tests(root: Path) -> Iterator[str]:
    """Each module has a test file that mirrors it on at least one level: tests/*/orders/test_consumer.py."""
    levels = [level for level in (root / "tests").iterdir() if level.is_dir()]
    for path in python_files(root, str(PACKAGE)):
        module = path.relative_to(root / PACKAGE)
        if not decides_something(path):
            continue
        names = {module.stem, TESTED_THROUGH.get(module.stem, module.stem)}
        if not any((level / module.parent / f"test_{name}.py").exists() for level in levels for name in names):
            yield f"{path.relative_to(root)}: no tests/*/{module.parent / f'test_{module.stem}.py'}"


def decides_something(path: Path) -> bool:
    """Whether there is anything to test: a function with a body, at any depth."""
    if path.name == "__init__.py":
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, functions) for node in ast.walk(ast.parse(path.read_text())))


def unknown_slow_files(root: Path) -> Iterator[str]:
    """LONGEST_FIRST in tests/conftest.py names test files that exist, each once."""
    conftest = root / "tests" / "conftest.py"
    names = longest_first(ast.parse(conftest.read_text()))
    for name in names:
        if not (root / "tests" / name).is_file():
            yield f"tests/conftest.py: LONGEST_FIRST names tests/{name}, which does not exist"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"tests/conftest.py: LONGEST_FIRST names tests/{name} twice"


def longest_first(module: ast.Module) -> list[str]:
    for node in module.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "LONGEST_FIRST" for target in node.targets
        ):
            return list(ast.literal_eval(node.value))
    raise LookupError("tests/conftest.py has no LONGEST_FIRST")


def python_files(root: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def folders_of(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_dir() and any(path.glob("*.py")))


GUARDS: dict[str, Callable[[Path], Iterator[str]]] = {
    "complexity": complexity,
    "docstrings": docstrings,
    "dead-code": dead_code,
    "long-files": long_files,
    "shadowing-names": shadowing_names,
    "missing-tests": missing_tests,
    "slow-files": unknown_slow_files,
}


def main() -> int:
    names = sys.argv[1:] or list(GUARDS)
    if unknown := set(names) - GUARDS.keys():
        print(f"There is no guard {', '.join(sorted(unknown))}; there are {', '.join(GUARDS)}.", file=sys.stderr)
        return 2
    offences = [f"{name}: {offence}" for name in names for offence in GUARDS[name](ROOT)]
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
