"""The commands of README and tutorials, run on a new installation, print what the documents say."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import PROGRAM, eventually, free_port
from tests.documents import masked, read_examples, run_examples

ROOT = Path(__file__).parents[2]
CANDIDATES = [ROOT / "README.md", ROOT / "README.pt-BR.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [path for path in CANDIDATES if "```console" in path.read_text()]


@contextmanager
def new_installation(data: Path) -> Iterator[str]:
    """What ./scripts/dev.sh starts; its base URL. The walk is over, so the books hold one payment of 100.00 BRL."""
    port = free_port()
    log = data.with_suffix(".log")
    command = [str(PROGRAM), "dev", "--data", str(data), "--port", str(port)]
    # docs/how-to/inject-faults.md has readers start it so; nothing is injected until somebody asks for it.
    environment = os.environ | {"CHAOS_ENABLED": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, start_new_session=True)
    try:
        eventually(lambda: "Serving on" in log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        # By Ctrl-C in any case: a killed process leaves its PostgreSQL behind.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        status = process.wait(60)
    assert status == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_document_print_what_it_says(document: Path, tmp_path: Path) -> None:
    examples = list(read_examples(document.read_text()))
    with new_installation(tmp_path / "data") as base_url:
        assert masked(run_examples(examples, base_url, tmp_path)) == masked(examples)


def test_there_is_a_document_to_run() -> None:
    assert ROOT / "docs/tutorial/first-payment.md" in DOCUMENTS
