"""Examples are read as a reader would type them, and compared without what is new each time."""

from pathlib import Path

import pytest

from tests.documents import DOCUMENTED_URL, Example, masked, read_examples, run_examples

ID, OTHER_ID = "01a21c0e-602a-763e-a1d6-f30009d5d7a3", "01a21c0e-6148-7365-a30c-fffc7cf22250"


def test_a_block_is_commands_with_their_outputs() -> None:
    first = "```console\n$ A=1 \\\n    B=2\n$ echo $A\n1\n\n2\n```\n"
    text = f"# A\n\n{first}\n```bash\nrm -r /\n```\n\n```console\n$ true\n```\n"
    assert list(read_examples(text)) == [
        Example("A=1 \\\n    B=2", ""),
        Example("echo $A", "1\n\n2"),
        Example("true", ""),
    ]


def test_a_block_without_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with a command"):
        list(read_examples("```console\ncurl\n```\n"))


@pytest.mark.parametrize(
    ("documented", "actual", "equal"),
    [
        (f"{ID} {ID}", f"{OTHER_ID} {OTHER_ID}", True),
        (f"{ID} {ID}", f"{ID} {OTHER_ID}", False),
        ("at 2026-01-02T03:04:05Z", "at 2027-01-02T03:04:05.678Z", True),
        (ID, "2027-01-02T03:04:05Z", False),
        ("49.90", "49.91", False),
    ],
)
def test_ids_and_times_may_differ_but_what_was_equal_must_stay_equal(documented: str, actual: str, equal: bool) -> None:
    assert (masked([Example("x", documented)]) == masked([Example("x", actual)])) is equal


def test_commands_share_a_shell_and_what_they_print_now_is_returned(tmp_path: Path) -> None:
    documented = [
        Example(f"ADDRESS={DOCUMENTED_URL}", ""),
        Example("echo $ADDRESS/healthz", f"{DOCUMENTED_URL}/healthz"),
        Example("printf 'SETTLED'", "AUTHORIZED"),
        Example("cat missing", ""),
    ]
    actual = run_examples(documented, "http://127.0.0.1:1", tmp_path)
    assert [example.command for example in actual] == [example.command for example in documented]
    assert [example == other for example, other in zip(actual, documented, strict=True)] == [True, True, False, False]


def test_a_shell_that_ends_early_leaves_examples_without_output(tmp_path: Path) -> None:
    documented = [Example("exit 0", ""), Example("echo never", "never")]
    assert run_examples(documented, DOCUMENTED_URL, tmp_path) != documented
