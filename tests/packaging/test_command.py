"""The ``slm`` command as people meet it: help at 80 columns, completion, version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from slm_plugin import __version__
from slm_plugin.cli import make_app

COLUMNS = 80
APP = make_app()


def verbs(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and the words that lead to it, groups included."""
    for name, found in getattr(command, "commands", {}).items():
        yield (*above, name), found
        yield from verbs(found, (*above, name))


VERBS = dict(verbs(get_command(APP)))


def help_of(*verb: str) -> str:
    result = CliRunner().invoke(APP, [*verb, "--help"], env={"COLUMNS": str(COLUMNS), "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.output


def words(text: str) -> str:
    """Join the cells of a table of options: what is broken over lines reads as one line again."""
    lines = [line.strip(" │╭╮╰╯─") for line in text.splitlines()]
    return re.sub(r"\s+", " ", " ".join(lines))


@pytest.mark.parametrize("verb", [(), *VERBS], ids=" ".join)
def test_help_fits_eighty_columns_and_cuts_nothing(verb: tuple[str, ...]):
    shown = help_of(*verb)
    assert max(len(line) for line in shown.splitlines()) <= COLUMNS
    assert "…" not in shown


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_option_says_what_it_is_for(verb: tuple[str, ...]):
    assert VERBS[verb].help
    for parameter in VERBS[verb].params:
        # Typer puts the default behind the sentence
        sentence = (parameter.help or "").split("  [")[0]
        assert sentence.endswith("."), f"slm {' '.join(verb)} {parameter.opts}: {sentence!r}"


def test_the_list_of_commands_says_what_each_does_in_full():
    shown = words(help_of())
    for (name, *below), command in VERBS.items():
        pieces = command.help.split("\n\n")[0].split()
        if below:
            continue
        # the sentence stands beside the name; its lines are broken by the names of other columns only
        assert " ".join(pieces[:4]) in shown, name
        assert pieces[-1] in shown, name


@pytest.mark.parametrize(("typed", "offered"), [("slm re", {"replay", "report"}), ("slm export", {"export-check"})])
def test_the_shell_completes_commands(typed: str, offered: set[str]):
    program = Path(sys.executable).with_name("slm")
    environment = {
        **os.environ,
        "_SLM_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered


def test_the_script_that_switches_completion_on_is_printed():
    program = Path(sys.executable).with_name("slm")
    environment = {**os.environ, "_SLM_COMPLETE": "source_bash"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False)
    assert "complete -o default -F" in done.stdout


def test_the_version_is_that_of_the_package_and_the_first_of_the_changelog(root: Path):
    result = CliRunner().invoke(APP, ["--version"])
    assert result.output.strip() == __version__
    headings = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == ("Unreleased" if ".dev" in __version__ else __version__)
