"""``slm codec configure``: other settings on the same weights."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from slm_plugin.errors import CodecError, suggest
from slm_plugin.speech.codec_command.common import CodecFolder, describe, folder_of, key_values

_FIXED = ("network", "n_units", "vocoder.shape", "features.layer")
"""Settings that belong to the weights."""


def configure(
    codec: CodecFolder,
    settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Such as features.dtype=bfloat16.")],
) -> None:
    """Change settings of a codec folder, such as precision, windows, voice and lookahead."""
    from slm_plugin.speech.folder import write_config
    from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
    from slm_plugin.speech.hubert_settings import KIND, HubertKmeansSettings
    from slm_plugin.strict import parse

    folder = folder_of(codec)
    present = HubertKmeansCodec.load(folder)
    raw = present.settings.model_dump()
    for key, value in key_values(settings).items():
        _set(raw, key, value)
    changed = HubertKmeansCodec(parse(HubertKmeansSettings, raw, "settings"), present.parts)
    write_config(folder, KIND, changed.settings, changed.fingerprint, {"digests": dict(present.parts.digests)})
    if changed.fingerprint != present.fingerprint:
        typer.echo(f"the units change: fingerprint {present.fingerprint} -> {changed.fingerprint}")
    typer.echo(f"{folder}: {describe(changed)}")


def _set(raw: dict[str, Any], key: str, value: object) -> None:
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED):
        raise CodecError(f"{key} belongs to the weights and cannot be changed; convert or fit another codec.")
    *path, last = key.split(".")
    place = raw
    for name in path:
        inner = place.get(name)
        if not isinstance(inner, dict):
            raise CodecError(f"{key}: the codec has no {name!r}. {suggest(name, place, 'Settings')}")
        place = inner
    if last not in place:
        raise CodecError(f"{key}: unknown setting. {suggest(last, place, 'Settings')}")
    place[last] = value
