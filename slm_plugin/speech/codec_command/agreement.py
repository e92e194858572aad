"""``slm codec agreement``: how many units a faster way of calculating leaves as they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from slm_plugin.errors import AudioError
from slm_plugin.speech.codec_command.common import CodecFolder, folder_of


def agreement(
    codec: CodecFolder,
    recordings: Annotated[list[Path], typer.Argument(help="Recordings, and folders of them.")],
    limit: Annotated[int, typer.Option(help="Recordings that are used at most.")] = 20,
    window_s: Annotated[float, typer.Option(help="Window to compare with whole recordings, in seconds.")] = 30.0,
) -> None:
    """Compare the units of bfloat16, float16, int8 and windows with those of float32 on whole recordings."""
    import torch

    from slm_plugin.speech.audio import decode, prepare
    from slm_plugin.speech.fit.recordings import find_recordings
    from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
    from slm_plugin.speech.hubert_settings import HubertKmeansSettings

    present = HubertKmeansCodec.load(folder_of(codec))
    waves = [prepare(*decode(path), present.sample_rate_hz) for path in find_recordings(recordings)[:limit]]
    seconds = sum(len(wave_N) for wave_N in waves) / present.sample_rate_hz
    if not seconds:
        raise AudioError("the recordings hold no sound.")
    longest = max(1.0, max(len(wave_N) for wave_N in waves) / present.sample_rate_hz + 1.0)
    whole = {"dtype": "float32", "int8": False, "window_s": longest}
    gpu = torch.cuda.is_available()
    variants: dict[str, dict[str, object]] = {"float32": whole, "bfloat16": {**whole, "dtype": "bfloat16"}}
    variants |= {"float16": {**whole, "dtype": "float16"}} if gpu else {"int8": {**whole, "int8": True}}
    variants[f"windows of {window_s:g} s"] = {**whole, "window_s": window_s}
    typer.echo(f"{len(waves)} recordings, {seconds:.0f} seconds, on {present.device}; the first row is the reference")
    reference: list[list[int]] = []
    for name, changes in variants.items():
        features = present.settings.features.model_copy(update=changes)
        settings = HubertKmeansSettings.model_validate({**present.settings.model_dump(), "features": features})
        variant = HubertKmeansCodec(settings, present.parts)
        variant.encode(waves[0][:16_000])
        begin = time.perf_counter()
        units = [found.tolist() for found in variant.frame_units(waves)]
        took = time.perf_counter() - begin
        reference = reference or units
        same = sum(a == b for old, new in zip(reference, units, strict=True) for a, b in zip(old, new, strict=True))
        total = max(1, sum(map(len, reference)))
        typer.echo(
            f"{name}: {100 * same / total:.2f} % of {total} units, {took / max(seconds, 1e-9):.3f} s per second"
        )
