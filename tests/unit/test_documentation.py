"""The link check finds what leads nowhere on a built site, and whatever a page fetches from elsewhere."""

from pathlib import Path

import pytest

from scripts.documentation import bring_linked_files, link_faults


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ('<a href="folder/">a folder with an index</a> <a href="folder/index.html#part">an anchor</a>', []),
        (
            '<a href="https://example.org/">elsewhere</a> <a href="mailto:a@example.org">mail</a> <a href="#">top</a>',
            [],
        ),
        ('<a href="gone.html">x</a>', ["gone.html leads to no file"]),
        ('<a href="empty/">x</a>', ["empty/ leads to no file"]),
        ('<img src="gone.svg">', ["gone.svg leads to no file"]),
        ('<a href="folder/index.html#gone">x</a>', ["folder/index.html#gone leads to no anchor"]),
        ('<a href="#gone">x</a>', ["#gone leads to no anchor"]),
        (
            '<script src="https://cdn.example.org/x.js"></script>',
            ["https://cdn.example.org/x.js is fetched from elsewhere"],
        ),
        ('<link href="//fonts.example.org/x.css">', ["//fonts.example.org/x.css is fetched from elsewhere"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(body: str, faults: list[str], tmp_path: Path) -> None:
    write(tmp_path, "index.html", body)
    write(tmp_path, "folder/index.html", '<h2 id="part">Part</h2>')
    (tmp_path / "empty").mkdir()
    assert list(link_faults(tmp_path)) == [f"index.html: {fault}" for fault in faults]


@pytest.mark.parametrize("rule", ['@import "https://x.example/a.css"', "src: url(//x.example/a.woff2)"])
def test_a_font_from_elsewhere_is_found(rule: str, tmp_path: Path) -> None:
    write(tmp_path, "a.css", rule)
    assert [fault.endswith("is fetched from elsewhere") for fault in link_faults(tmp_path)] == [True]


def test_a_file_of_the_repository_is_brought_along_and_nothing_outside_of_it(tmp_path: Path) -> None:
    site, root = tmp_path / "site", tmp_path / "repository"
    write(root, "compose.yaml", "services:")
    write(tmp_path, "secret.txt", "")
    write(site, "docs/page.html", '<a href="../compose.yaml">x</a> <a href="../../secret.txt">y</a>')
    bring_linked_files(site, root)
    assert (site / "compose.yaml").read_text() == "services:"
    assert sorted(path.name for path in site.rglob("*.*")) == ["compose.yaml", "page.html"]


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
