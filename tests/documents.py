"""Reads the examples of a document and runs them: fenced `console` blocks, with the outputs that a reader will see.

A line that begins with "$ " is a command; while it ends with a backslash, the next line belongs to it. Everything up
to the next command is its output. All commands of a document run in one shell, so a variable holds from block to block.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

# Where the documents say that the engine is.
DOCUMENTED_URL = "http://localhost:8000"
# Printed by the shell between the outputs of two commands (ASCII's record separator: no command prints it).
SEPARATOR = "\x1e"
# Long, because other tests may share the cores; a document takes two seconds on a quiet machine.
SECONDS_MAX = 120


@dataclass(frozen=True, slots=True)
class Example:
    command: str
    output: str


def read_examples(text: str) -> Iterator[Example]:
    """The examples of a document in Markdown, in order."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        # A prompt begins an example; the first piece, before any prompt, has to be empty.
        before, *pieces = re.split(r"^\$ ", block, flags=re.MULTILINE)
        if before.strip() or not pieces:
            raise ValueError(f"a console block begins with a command, not with {before!r}")
        for piece in pieces:
            lines = piece.splitlines()
            end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
            yield Example("\n".join(lines[:end]), "\n".join(lines[end:]).strip())


def run_examples(examples: Iterable[Example], base_url: str, folder: Path) -> list[Example]:
    """The same commands with the outputs that they have now, standard error included. They may write into `folder`."""
    commands = [example.command for example in examples]
    script = "".join(f"{command}\nprintf '{SEPARATOR}'\n" for command in commands)
    done = subprocess.run(
        ["bash", "-c", script.replace(DOCUMENTED_URL, base_url)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
        # The documents use python3 to read JSON.
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    outputs = done.stdout.replace(base_url, DOCUMENTED_URL).replace("\r", "").split(SEPARATOR)
    return [Example(command, output.strip()) for command, output in zip(commands, outputs, strict=False)]


@dataclass(slots=True)
class Mask:
    """Puts names in the place of ids and times. The same value gets the same name, so what was equal stays equal."""

    names: dict[str, str] = field(default_factory=dict)

    PATTERN: ClassVar = re.compile(
        r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)"
    )

    def __call__(self, text: str) -> str:
        return self.PATTERN.sub(lambda found: self._name(found.lastgroup or "", found[0]), text)

    def _name(self, kind: str, value: str) -> str:
        return self.names.setdefault(value, f"<{kind} {len(self.names) + 1}>")


def masked(examples: Iterable[Example]) -> list[Example]:
    mask = Mask()
    return [Example(example.command, mask(example.output)) for example in examples]
