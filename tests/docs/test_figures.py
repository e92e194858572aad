"""Figures in prose are those of the benchmarks; the site built of the pages is whole and fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.blocks import ROOT

FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "audio": "src", "video": "src"}


def rows_of(page: Path) -> list[list[str]]:
    """Return the cells of every row of every table, links and emphasis taken off."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)|\*\*", r"\1", line) for line in lines]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in plain]


@pytest.fixture(scope="module")
def measured() -> list[list[str]]:
    """Return text QA, ASR WER and SQA unheard of every method of the benchmark."""
    rows = [row for row in rows_of(ROOT / "benchmarks/README.md") if len(row) == 10]
    found = [[row[1], row[3], row[6]] for row in rows if re.fullmatch(r"\d\.\d{3}", row[6])]
    assert len(found) > 25
    return found


def test_the_page_of_methods_has_the_figures_of_the_benchmark(measured: list[list[str]]):
    shown = [row[1:4] for row in rows_of(ROOT / "docs/concepts/methods.md") if re.fullmatch(r"\d\.\d{3}", row[1])]
    assert len(shown) == 23
    assert [row for row in shown if row not in measured] == []


@pytest.mark.parametrize("name", ["docs/concepts/forgetting.md", "docs/log.md", "docs/tutorial.md"])
def test_every_figure_of_three_digits_is_in_the_benchmarks_or_the_tiny_world(name: str):
    sources = ("benchmarks/README.md", "examples/tiny/README.md")
    known = {
        figure for path in sources for figure in re.findall(r"\.\d{3}\b", (ROOT / path).read_text(encoding="utf-8"))
    }
    found = set(re.findall(r"(?<![\d.])\d?(\.\d{3})\b(?!\.)", (ROOT / name).read_text(encoding="utf-8")))
    assert found
    assert found <= known


class Resources(HTMLParser):
    """Collects what a page makes a browser fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        self.found.append(given.get(FETCHED.get(tag, "")) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is needed: pip install 'slm-plugin[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_holds_every_page_without_a_warning(site: Path):
    pages = list((ROOT / "docs").rglob("*.md"))
    missing = [path for path in pages if not (site / path.relative_to(ROOT)).with_suffix(".html").is_file()]
    assert missing == []
    assert (site / "index.html").is_file()


def test_no_page_of_the_site_fetches_anything_from_elsewhere(site: Path):
    n_seen = 0
    for page in site.rglob("*.html"):
        parser = Resources()
        parser.feed(page.read_text(encoding="utf-8"))
        n_seen += sum(bool(found) for found in parser.found)
        assert [found for found in parser.found if re.match(r"(https?:)?//", found)] == [], page
        # the theme would fetch Mermaid's renderer for this class
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8")
    assert n_seen > 100
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text(encoding="utf-8")), style
