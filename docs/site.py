"""What MkDocs builds: the Markdown files of the repository, at their places, and the files they link to.

A link that leads somewhere in the repository therefore leads there on the site as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*.md", "dataset_info/*.md", "examples/**/*.md", "benchmarks/*.md")
FOLDER = re.compile(r"\[(`[^`]+`)\]\(([^)\s#:]+)\)")
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace every pattern in the navigation by the pages that it finds."""
    config.nav = _expanded(config.nav, set(_named(config.nav)))
    config.watch.extend(str(ROOT / folder) for folder in ("README.md", "CONTRIBUTING.md", "dataset_info", "examples"))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the pages and what they link to, named from the top of the repository."""
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    linked = {
        target
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if (target := (page.parent / link).resolve()).is_file() and target.is_relative_to(ROOT)
    }
    own = [file for file in files if file.inclusion.is_included() and not (ROOT / "docs" / file.src_uri).is_file()]
    styles = [ROOT / name for name in config.extra_css]
    found = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for path in dict.fromkeys([*pages, *sorted(linked), *styles])
    ]
    return Files([*own, *found])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave of a link to a folder its words: the repository shows what is in it, the site has no page for it."""
    here = ROOT / Path(page.file.src_uri).parent
    return FOLDER.sub(lambda link: link[1] if (here / link[2]).is_dir() else link[0], markdown)


def _named(entry: Any) -> Iterator[str]:
    """Yield the pages that the navigation names one by one."""
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from _named(inner)


def _expanded(entry: Any, named: set[str]) -> Any:
    if isinstance(entry, list):
        return [part for item in entry for part in _flat(_expanded(item, named))]
    if isinstance(entry, dict):
        return {title: _expanded(inner, named) for title, inner in entry.items()}
    if isinstance(entry, str) and "*" in entry:
        found = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(entry))]
        return [name for name in found if name not in named]
    return entry


def _flat(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]
