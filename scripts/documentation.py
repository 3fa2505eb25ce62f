"""Builds the documentation site, without a network, and checks every link of it: `python -m scripts.documentation`.

The site is the repository's documents in their own places, so a link works in an editor, on a code host and on the
site alike. Zensical checks links between pages; what it leaves unchecked (files, folders, anchors in HTML, anything
fetched from elsewhere) is checked here, on the pages as they were built.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
# Zensical keeps its cache beside its configuration, so that is copied too and everything can be deleted at once.
BUILD = ROOT / ".docs"
SOURCE = BUILD / "source"
SITE = BUILD / "site"
# Folders whose pages are listed by title, because other documents link to the folder.
LISTED = {"docs/runbooks": "Runbooks"}
# What a browser fetches by itself. Only these may not come from elsewhere; a link may lead anywhere.
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href")}


def main() -> int:
    stage()
    built = subprocess.run([Path(sys.executable).with_name("zensical"), "build", "--clean", "--strict"], cwd=BUILD)
    if built.returncode:
        return built.returncode
    bring_linked_files(SITE, ROOT)
    faults = list(link_faults(SITE))
    for fault in faults:
        print(fault)
    print(f"{SITE.relative_to(ROOT)}: {len(list(pages_of(SITE)))} pages, {len(faults)} broken links")
    return 1 if faults else 0


def stage() -> None:
    """Copies what git knows of, or would add, so that a stray file never gets onto the site."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    (BUILD / ".gitignore").write_text("*\n")
    shutil.copy(ROOT / "zensical.toml", BUILD)
    for path in tracked("*.md", "docs", "bench/plots"):
        (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, SOURCE / path)
    for folder, title in LISTED.items():
        lines = [f"- [{title_of(page)}]({page.name})" for page in sorted((SOURCE / folder).glob("*.md"))]
        (SOURCE / folder / "README.md").write_text("\n".join([f"# {title}", "", *lines, ""]))


def tracked(*patterns: str) -> list[str]:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in names.split("\0") if name and (ROOT / name).is_file()]


def title_of(page: Path) -> str:
    heading = next(line for line in page.read_text().splitlines() if line.startswith("# "))
    return heading.removeprefix("# ")


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser fetches to show it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors = {"", "top"}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.anchors.add(value)
            if name in ("href", "src"):
                self.links.append(value)
            if (tag, name) in FETCHED:
                self.fetched.append(value)


def pages_of(site: Path) -> Iterator[Path]:
    return site.rglob("*.html")


def target_of(link: str, page: Path) -> Path | None:
    """The file on the site that a link leads to; None for a link that leads elsewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = page if not parts.path else page.parent / unquote(parts.path)
    return path / "index.html" if path.is_dir() or parts.path.endswith("/") else path


def bring_linked_files(site: Path, root: Path) -> None:
    """Copies the repository's files that pages link to (compose.yaml, .env.example) beside the pages."""
    for path in pages_of(site):
        for link in Page(path).links:
            target = target_of(link, path)
            if target is None or target.exists() or not target.resolve().is_relative_to(site.resolve()):
                continue
            original = root / target.resolve().relative_to(site.resolve())
            if original.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(original, target)


def link_faults(site: Path) -> Iterator[str]:
    """What a reader would stumble over: links that lead nowhere, and whatever is fetched from elsewhere."""
    pages = {path.resolve(): Page(path) for path in pages_of(site)}
    for path, page in pages.items():
        # The page for unknown addresses is shown at any address, so its links begin at the root of the server.
        if path.name != "404.html":
            place = path.relative_to(site.resolve())
            yield from (f"{place}: {link} {fault}" for link in page.links if (fault := fault_of(link, path, pages)))
            yield from (f"{place}: {link} is fetched from elsewhere" for link in page.fetched if urlsplit(link).netloc)
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']+)", sheet.read_text())
        yield from (f"{sheet.relative_to(site)}: {address} is fetched from elsewhere" for address in addresses)


def fault_of(link: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """What is wrong with a link on the page at `path`, if anything."""
    target = target_of(link, path)
    if target is None:
        return None
    target = target.resolve()
    if not target.is_file():
        return "leads to no file"
    if target in pages and unquote(urlsplit(link).fragment) not in pages[target].anchors:
        return "leads to no anchor"
    return None


if __name__ == "__main__":
    sys.exit(main())
