"""``slm codec show``."""

from __future__ import annotations

from typing import Annotated

import typer

CodecName = Annotated[str, typer.Argument(metavar="CODEC", help="Registered codec, or a codec folder.")]


def show(codec: CodecName) -> None:
    """Say what a codec is, and under which terms its weights came."""
    from slm_plugin.plugins import Registry
    from slm_plugin.speech.codec_command.common import describe
    from slm_plugin.speech.codecs import load_codec

    typer.echo(describe(load_codec(codec, Registry.load())))
