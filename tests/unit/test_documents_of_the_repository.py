"""The decisions and the navigation of the documentation are complete."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
# Half a printed page, and some more for a list. What is longer is an explanation, and belongs into docs/explanation.
WORDS_MAX = 400


def test_decisions_are_numbered_without_a_gap_and_the_index_lists_each_by_its_title() -> None:
    headings = [path.read_text().splitlines()[0].removeprefix("# ") for path in DECISIONS]
    assert [int(heading.partition(".")[0]) for heading in headings] == list(range(1, len(DECISIONS) + 1))
    index = (ROOT / "docs/decisions/README.md").read_text()
    listed = re.findall(r"^(\d+\.) \[(.*)\]\((.*)\)$", index, re.MULTILINE)
    assert [(f"{number} {title}", name) for number, title, name in listed] == [
        (heading, path.name) for heading, path in zip(headings, DECISIONS, strict=True)
    ]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_half_a_page_of_context_decision_and_consequences(path: Path) -> None:
    text = path.read_text()
    assert len(text.split()) <= WORDS_MAX
    assert f"# {int(path.name[:4])}. " in text
    assert "\nStatus: " in text
    if "Not used" not in text:
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_every_page_of_the_documentation_is_in_the_navigation() -> None:
    """Decisions and runbooks by their index."""
    shown = set(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    written = {name for name in written if not name.startswith(("docs/decisions/0", "docs/runbooks/"))}
    assert written <= shown


def pages(entry: object) -> Iterator[str]:
    match entry:
        case str():
            yield entry
        case dict():
            for value in entry.values():
                yield from pages(value)
        case list():
            for value in entry:
                yield from pages(value)


@pytest.mark.parametrize("name", ["guarantees", "security"])
def test_the_tests_that_a_page_names_exist(name: str) -> None:
    text = (ROOT / f"docs/explanation/{name}.md").read_text()
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    functions = {test for source in sources.values() for test in re.findall(r"def (test_\w+)\(", source)}
    files = {str(path.relative_to(ROOT / "tests")) for path in sources}
    named = set(re.findall(r"`(?:[\w/]+\.py::)?(test_\w+)(?!\w|\.py)", text))
    assert named
    assert named <= functions
    assert set(re.findall(r"`(?:tests/)?((?:unit|integration|faults|acceptance|models)/[\w/]+\.py)", text)) <= files


def test_the_reference_lists_every_route_of_the_openapi_document() -> None:
    """A row may name several methods, and several last words of a path: `POST /v1/a/b, …/c`."""
    text = (ROOT / "docs/reference/api.md").read_text()
    listed = {
        (method, path if alternative is None else f"{path.rpartition('/')[0]}/{alternative}")
        for methods, path, more in re.findall(r"^\| ([A-Z, ]+) (/[^ ,|]*)(?:, …/(\w+))? \|", text, re.MULTILINE)
        for method in methods.split(", ")
        for alternative in (None, more or None)
    }
    served = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]
    assert {(method.upper(), path) for path, operations in served.items() for method in operations} == listed
