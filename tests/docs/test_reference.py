from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from slm_plugin import reference
from slm_plugin.hookspecs import RegisterHooks, StageHooks


def test_the_committed_pages_are_what_the_code_says(root: Path):
    for name, page in reference.PAGES.items():
        assert (root / "docs/reference" / name).read_text(encoding="utf-8") == page(), f"{name}: run make docs"


def test_every_hook_is_documented_with_its_exact_arguments():
    page = reference.hooks_page()
    hooks = {name: function for group in (RegisterHooks, StageHooks) for name, function in vars(group).items()}
    documented = {name: function for name, function in hooks.items() if name.startswith("slm_")}
    assert len(documented) == 14
    for name, function in documented.items():
        shown = page.split(f"### {name}\n")[1].split("```")[1]
        arguments = list(inspect.signature(function).parameters)[1:]
        assert re.findall(r"(?:\(|, |\n    )(\w+): ", shown) == arguments


def test_every_key_has_a_meaning():
    rows = [line for name, page in reference.PAGES.items() if "keys" in name for line in page().splitlines()]
    keys = [re.split(r"(?<!\\)\|", line) for line in rows if line.startswith("| `")]
    assert len(keys) > 20
    assert [cells[1].strip() for cells in keys if not cells[4].strip()] == []


def test_check_passes_on_fresh_pages_and_names_a_page_that_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert reference.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(reference.PAGES)
    assert reference.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "hooks.md").write_text("old", encoding="utf-8")
    assert reference.main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "hooks.md") in said
    assert "slm-keys.md" not in said
    assert (tmp_path / "hooks.md").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Fire ``slm_x`` of :class:`a.B`.", "Fire `slm_x` of `a.B`."),
        ("Do.\n\nReturns:\n    One\n    thing.", "Do.\n\n*Returns:* One thing."),
        ("As follows::\n\n    x = 1\n\nThen.", "As follows:\n\n```\nx = 1\n```\n\nThen."),
    ],
)
def test_docstrings_become_markdown(docstring: str, expected: str):
    assert reference.markdown(docstring) == expected
