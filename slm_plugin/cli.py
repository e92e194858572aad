"""The ``slm`` command."""

from __future__ import annotations

import sys
from importlib import metadata

import typer

from slm_plugin import __version__
from slm_plugin.errors import SlmError

COMMANDS = "slm_plugin.commands"
"""Entry-point group of further verbs; ``slm serve`` of ``slm_serve`` is one."""


def make_app() -> typer.Typer:
    """Return the command with every installed verb."""
    app = typer.Typer(
        name="slm",
        help="Train, measure and serve spoken language models on LLaMA-Factory and vLLM.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit

    for entry in sorted(metadata.entry_points(group=COMMANDS), key=lambda found: found.name):
        app.command(entry.name)(entry.load())
    return app


def main() -> None:
    """Run the command; a user's mistake is one message on stderr and exit status 2."""
    try:
        make_app()()
    except SlmError as error:
        sys.stderr.write(f"slm: {type(error).__name__}: {error}\n")
        sys.exit(2)
