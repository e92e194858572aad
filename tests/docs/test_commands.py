"""Command lines that a test does not run are at least ones that the command takes."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from docs.blocks import Block, blocks_of, pages
from slm_plugin.cli import make_app

LINES = [
    (block, line.split(" #")[0].strip())
    for page in pages()
    for block in blocks_of(page)
    if block.language == "bash"
    for line in block.text.replace("\\\n", " ").splitlines()
    if re.match(r"slm [a-z]", line.strip())
]


def test_there_are_some():
    assert len({line.split()[1] for _, line in LINES}) >= 5


@pytest.mark.parametrize(("block", "line"), LINES, ids=lambda value: str(value))
def test_the_command_takes_it(block: Block, line: str):
    words = shlex.split(re.sub(r"(?:\d?>+|&).*", "", line))[1:]
    command = get_command(make_app())
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{block}: slm has no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    # parses the options without running anything
    command.make_context("slm", list(words))
