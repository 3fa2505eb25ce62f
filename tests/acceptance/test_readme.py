"""The commands of both READMEs, as they stand there, and what both say of each other."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import Engine
from tests.documents import DOCUMENTED_URL, Example, masked

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.pt-BR.md")
# More is documentation, and belongs into docs/.
LINES_MAX = 150


def fenced(text: str) -> list[tuple[str, str]]:
    """The code blocks, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("readme", READMES)
def test_the_first_payment_works_as_it_stands_and_prints_what_the_readme_says(readme: str, engine: Engine) -> None:
    blocks = fenced((ROOT / readme).read_text())
    commands = next(code for _, code in blocks if "TOKEN=" in code)
    output = next(code for language, code in blocks if language == "json")
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        script = commands.replace(DOCUMENTED_URL, engine.base_url)
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert masked([Example(commands, done.stdout)]) == masked([Example(commands, output)])


def test_both_readmes_have_the_same_sections_code_and_links() -> None:
    english, portuguese = ((ROOT / readme).read_text() for readme in READMES)
    assert levels(english) == levels(portuguese)
    # The diagram's words are translated; its lines and what is code in it are not.
    assert [(language, code) for language, code in fenced(english) if language] == [
        (language, code) for language, code in fenced(portuguese) if language
    ]
    assert len(fenced(english)) == len(fenced(portuguese))
    assert targets(english) == targets(portuguese)


def levels(text: str) -> list[str]:
    return re.findall(r"^#+(?= )", text, re.MULTILINE)


def targets(text: str) -> list[str]:
    """Where its links lead, in their order; without the one to the other language."""
    return [target for target in re.findall(r"\]\(([^)]+)\)", text) if target not in READMES]


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_is_short(readme: str) -> None:
    assert len((ROOT / readme).read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("readme", READMES)
def test_no_program_is_needed_that_is_not_named(readme: str) -> None:
    text = (ROOT / readme).read_text()
    assert "uuidgen" not in text
    # A response that does not end its line would run into the prompt.
    for command in re.findall(r"^(?:until )?curl .*$", text, re.MULTILINE):
        assert "-w '\\n'" in command


def test_the_demo_users_of_the_reference_are_those_of_the_seed(engine: Engine) -> None:
    seeded = engine.run("seed").splitlines()
    row = re.compile(r"^\| (\S+@\S+) \| (\S+) \| (?:global \(`)?(\S+?)(?:`\))? \| (\w+) \|", re.MULTILINE)
    rows = row.findall((ROOT / "docs/reference/demo-data.md").read_text())
    assert [f"{email} / {password}, tenant {tenant}, role {role}" for email, password, tenant, role in rows] == seeded
