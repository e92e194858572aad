"""The command group ``slm codec``."""

from __future__ import annotations

import typer

from slm_plugin.lazy_commands import lazy_group

VERBS = {
    name: f"slm_plugin.speech.codec_command.{name}:{name}"
    for name in ("convert", "fit", "show", "configure", "agreement")
}


def make_codec_app() -> typer.Typer:
    """Return the command group ``slm codec``."""
    app = typer.Typer(
        cls=lazy_group(VERBS), add_completion=False, no_args_is_help=True, help="Codecs: audio to units and back."
    )

    @app.callback()
    def root() -> None:
        """Codecs: audio to units and back."""

    return app
