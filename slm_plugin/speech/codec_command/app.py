"""The command group ``slm codec``."""

from __future__ import annotations

import typer

from slm_plugin.speech.codec_command.agreement import agreement
from slm_plugin.speech.codec_command.configure import configure
from slm_plugin.speech.codec_command.convert import convert
from slm_plugin.speech.codec_command.fit import fit
from slm_plugin.speech.codec_command.show import show


def make_codec_app() -> typer.Typer:
    """Return the command group ``slm codec``."""
    app = typer.Typer(no_args_is_help=True, help="Codecs: audio to units and back.")
    for verb in (convert, fit, show, configure, agreement):
        app.command(verb.__name__)(verb)
    return app
