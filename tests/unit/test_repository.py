"""The files that other programs read about this repository: workflows, forms, hooks, recipes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One of the development tools, in the repository's folder."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("renovate", ".github/renovate.json"),
        ("compose-spec", "compose.yaml"),
    ],
)
def test_a_file_follows_the_schema_of_its_kind(schema: str, pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    done = run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_workflow_that_breaks_its_schema_is_noticed(tmp_path: Path) -> None:
    workflow = tmp_path / "broken.yml"
    workflow.write_text("on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    step: []\n")
    assert run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow).returncode == 1


def test_the_hooks_are_valid() -> None:
    assert run("prek", "validate-config", ".pre-commit-config.yaml").returncode == 0


@pytest.mark.parametrize(
    "name", ["justfile", "CONTRIBUTING.md", *(f".github/workflows/{n}.yml" for n in ("fast", "full"))]
)
def test_the_scripts_that_a_file_names_exist_and_can_be_run(name: str) -> None:
    text = (ROOT / name).read_text()
    scripts = set(re.findall(r"(?<![\w/.])(?:scripts/[\w-]+\.sh|\.ci/run)", text))
    assert scripts
    sourced = {f"scripts/{library}.sh" for library in ("environment", "servers", "compose")}
    assert [script for script in scripts - sourced if not (ROOT / script).stat().st_mode & 0o100] == []


def test_each_recipe_that_a_document_or_workflow_names_exists() -> None:
    recipes = set(run("just", "--summary").stdout.split())
    texts = [path.read_text() for path in (ROOT / "CONTRIBUTING.md", *ROOT.glob(".github/**/*.*"))]
    named = {recipe for text in texts for recipe in re.findall(r"(?:`|bin/)just ([a-z][a-z-]*)", text)}
    assert {"fast", "docs", "set-up"} <= named <= recipes
