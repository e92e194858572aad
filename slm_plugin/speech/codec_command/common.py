"""What several verbs of ``slm codec`` share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm_plugin.errors import CodecError
from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
from slm_plugin.speech.named_codecs import codec_home

if TYPE_CHECKING:
    from slm_plugin.speech.protocol import Codec

CodecFolder = Annotated[str, typer.Argument(metavar="CODEC", help="Codec folder, or the name of one.")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="Read files that could run code of whoever made them.")]
Heads = Annotated[int | None, typer.Option(help="Attention heads, where a .pt file does not say.  [default: 16]")]
Layer = Annotated[int | None, typer.Option(help="Layer of the features, from 1.  [default: 35 of 48]")]


def folder_of(name_or_folder: str) -> Path:
    """Return the folder of a codec of this kind that a user names.

    Raises:
        CodecError: There is none.
    """
    for folder in (Path(name_or_folder), codec_home() / name_or_folder):
        if folder.is_dir():
            return folder
    raise CodecError(f"there is no codec folder at {name_or_folder} nor at {codec_home() / name_or_folder}.")


def describe(codec: Codec) -> str:
    """Return what a codec is, in a few lines."""
    folds = ", runs folded" if codec.folds_runs else ""
    lines = [f"{codec.n_units} units, {codec.rate_hz:g} a second{folds}, fingerprint {codec.fingerprint}"]
    if isinstance(codec, HubertKmeansCodec):
        settings = codec.settings
        precision = "8 bits" if settings.features.int8 else settings.features.dtype
        lines.append(f"features: layer {settings.features.layer} of a {settings.network['model_type']} in {precision}")
        voice = settings.vocoder
        spoken = f"language {voice.language}, speaker {voice.speaker}" if voice else "none: the codec only listens"
        lines.append(f"vocoder: {spoken}")
        lines += [f"licence: {licence}" for licence in settings.licences]
    return "\n".join(lines)


def key_values(pairs: Iterable[str]) -> dict[str, object]:
    """Return ``key=value`` pairs, values read as YAML.

    Raises:
        CodecError: A pair has no ``=``.
    """
    import yaml

    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CodecError(f"{pair!r} is no setting; write KEY=VALUE, such as features.dtype=bfloat16.")
        found[key] = yaml.safe_load(value)
    return found
