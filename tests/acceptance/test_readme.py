"""The commands of both READMEs, as they stand there."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import Engine

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.pt-BR.md")


def commands_with_curl(readme: str) -> list[str]:
    """Those of the first payment, one by one."""
    [block] = re.findall(r"```bash\n(TOKEN=.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    return re.sub(r"\\\n", "", block).strip().splitlines()


@pytest.mark.parametrize("readme", READMES)
def test_the_first_payment_works_as_it_stands_and_every_response_ends_its_line(readme: str, engine: Engine) -> None:
    login, *commands = commands_with_curl(readme)
    assert len(commands) == 4
    shown = []
    with engine.api(), engine.worker():
        engine.wait_until_ready()
        payment = ""
        for command in commands:
            script = f"{login}\n{command}".replace("localhost:8000", f"127.0.0.1:{engine.port}")
            script = script.replace("<PI_ID>", payment)
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
            shown.append(done.stdout)
            payment = payment or re.findall(r'"id":"([0-9a-f-]+)"', done.stdout)[0]
    assert [text for text in shown if not re.fullmatch(r"[{\[].*[}\]]\n", text)] == []
    created, confirmed, balances, entries = shown
    assert '"status":"CREATED"' in created
    assert '"status":"AUTHORIZED"' in confirmed
    assert "CASH" in balances or balances == "[]\n"
    assert entries.startswith("[")


@pytest.mark.parametrize("readme", READMES)
def test_no_program_is_needed_that_is_not_named(readme: str) -> None:
    text = (ROOT / readme).read_text()
    assert "uuidgen" not in text
    for command in re.findall(r"^curl .*$", text, re.MULTILINE):
        assert "-w '\\n'" in command


def test_the_demo_users_of_the_readme_are_those_of_the_seed(engine: Engine) -> None:
    seeded = engine.run("seed").splitlines()
    row = re.compile(r"^\| (\S+@\S+) \| (\S+) \| (?:global \(`)?(\S+?)(?:`\))? \| (\w+) \|", re.MULTILINE)
    for readme in READMES:
        rows = row.findall((ROOT / readme).read_text())
        told = [f"{email} / {password}, tenant {tenant}, role {role}" for email, password, tenant, role in rows]
        assert told == seeded
