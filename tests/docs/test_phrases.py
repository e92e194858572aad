"""Phrases that must not come back to the pages that users read."""

from __future__ import annotations

import re

import pytest

from docs.blocks import ROOT

PHRASES = [
    r"\b(is|are) told\b",
    r"\bpassed over\b",
    r"\b(lets?|letting) go of\b",
    r"\bgives? up\b",
    r"\banew\b",
    r"\bmend(s|ed|ing)?\b",
    r"\bwithout a word\b",
    r"\bwhere there (is|are) no",
    r"\bthe host('s)?\b(?! name)",
    r"(?<![\w.\])/])\.\d",  # a number without a leading zero
]

LEFT_OUT = {"log.md", "review.md", "replica.md"}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in LEFT_OUT),
    *(page for folder in ("how-to", "methods", "concepts") for page in sorted((ROOT / "docs" / folder).glob("*.md"))),
    *sorted((ROOT / "examples").glob("*/README.md")),
    *sorted((ROOT / "dataset_info").glob("*.md")),
]


def prose(text: str) -> str:
    """Return a page without its code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_page_has_the_phrase(phrase: str):
    found = {
        str(page.relative_to(ROOT)): match.group()
        for page in PAGES
        if (match := re.search(phrase, prose(page.read_text(encoding="utf-8")), re.IGNORECASE))
    }
    assert found == {}


@pytest.mark.parametrize(
    "wrong", ["the client is told 503", "a seed is drawn anew", "a rate of .95", "the host's own"]
)
def test_the_list_finds_what_it_is_for(wrong: str):
    assert any(re.search(phrase, prose(wrong), re.IGNORECASE) for phrase in PHRASES)
