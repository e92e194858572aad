"""Reference pages of what is not a key: the command line, the errors, the metrics of forgetting."""

from __future__ import annotations

import inspect
import re
import types
from typing import Any, cast

from slm_plugin import errors
from slm_plugin.docstrings import markdown
from slm_plugin.eval import metrics, statistics

NOTE = "<!-- Written by `python -m slm_plugin.reference` from the code's docstrings; edit those. -->\n\n"


def command_page() -> str:
    """Return the page of the ``slm`` command, as Typer documents it."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from slm_plugin.cli import make_app

    command = get_command(make_app())
    context = command.make_context("slm", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=cast(Any, context), name="slm")
    # its lists of commands cut every sentence short; each command has a section below
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?", "", text).replace(
        "# `slm`", f"# The command line\n\n{NOTE}", 1
    )
    text = re.sub(r"^\* `--(?:help|install-completion|show-completion)`.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*Options\*\*:\n\n(?!\*)", "", text)
    text = re.sub(r"^\* (`[^`]+`): (.*?)  \[(.*)\]$", r"* \1: \2 *(\3)*", text, flags=re.MULTILINE)
    text = text.replace("```console\n$ ", "```text\n").replace("*(required)*", "*Required.*")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def errors_page() -> str:
    """Return the page of the errors a user can cause."""
    head = markdown(inspect.getdoc(errors) or "").split("\n", 1)[1].strip()
    parts = [
        f"# Errors\n\n{NOTE}{head}\n",
        "The commands end with status 2 and print `slm: NAME: MESSAGE` on stderr; `slm serve` prints"
        " `slm serve: MESSAGE` and ends with status 1. Common messages and what to do about them are in"
        " [troubleshooting](../troubleshooting.md).\n",
    ]
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.SlmError):
            parts.append(f"## {name}\n\n{markdown(inspect.getdoc(value) or '')}\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """Return the page of the formulas that reports calculate."""
    parts = [f"# Metrics of forgetting\n\n{NOTE}`slm report` calculates them from the matrix of a run.\n"]
    for title, module in (("From the matrix", metrics), ("Intervals and comparisons", statistics)):
        parts += [
            f"## {title}\n\n{markdown((inspect.getdoc(module) or '').split(chr(10), 1)[-1])}\n",
            *_functions(module),
        ]
    return "\n".join(parts)


def _functions(module: types.ModuleType) -> list[str]:
    """Return a section for each public function that a module defines, in the order of the file."""
    found = [
        (name, value)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    return [f"### {name}\n\n{markdown(inspect.getdoc(value) or '')}\n" for name, value in found]
