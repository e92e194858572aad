"""``slm codec convert``: published files become a codec folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm_plugin.errors import CodecError
from slm_plugin.speech.codec_command.common import Heads, Layer, Trust, describe
from slm_plugin.speech.hubert_kmeans import SEAMLESS_LICENCE, XLSR, HubertKmeansCodec
from slm_plugin.speech.hubert_settings import HubertKmeansSettings
from slm_plugin.speech.named_codecs import codec_home

_SEAMLESS_FILES = ("xlsr2_1b_v2", "kmeans_10k", "vocoder_v2", "seamless")
_CHOICES = ("append_one", "as_is")


def convert(
    encoder: Annotated[Path, typer.Option(help="fairseq .pt file, or folder in transformers' form.")],
    centroids: Annotated[Path, typer.Option(help="k-means: .npy, .safetensors or a pickled scikit-learn model.")],
    output: Annotated[Path | None, typer.Option(help="Codec folder.  [default: where xlsr-10k is looked for]")] = None,
    layer: Layer = None,
    vocoder: Annotated[str, typer.Option(help="vocoder_v2.pt, unit HiFi-GAN, or Seamless folder or URL.")] = "",
    vocoder_config: Annotated[Path | None, typer.Option(help="JSON of a fairseq unit HiFi-GAN.")] = None,
    language: Annotated[str, typer.Option(help="Language the vocoder speaks.")] = "eng",
    speaker: Annotated[int, typer.Option(help="Its speaker; -1 for the language's first.")] = -1,
    fold_runs: Annotated[bool, typer.Option("--fold-runs", help="Fold runs of equal units into one.")] = False,
    odd_length: Annotated[str, typer.Option(help="append_one or as_is.  [default: as the source]")] = "",
    heads: Heads = None,
    licence: Annotated[list[str] | None, typer.Option(help="Terms of the weights, to be kept with them.")] = None,
    trust_pickle: Trust = False,
) -> None:
    """Make a codec of a speech network, a k-means and, if given, a vocoder."""
    from slm_plugin.speech.convert.centroids import read_centroids
    from slm_plugin.speech.convert.encoder import read_encoder
    from slm_plugin.speech.convert.vocoder import read_vocoder
    from slm_plugin.speech.features.settings import FeatureSettings
    from slm_plugin.speech.parts import CENTROIDS, ENCODER, VOCODER, PartsInMemory
    from slm_plugin.speech.vocoder.settings import VocoderSettings

    if odd_length not in ("", *_CHOICES):
        raise CodecError(f"--odd-length {odd_length!r} is not accepted; use {' or '.join(_CHOICES)}.")
    listener = read_encoder(encoder, layer, heads, trust_pickle)
    points_KD = read_centroids(centroids, listener.config["hidden_size"], trust_pickle)
    parts = {ENCODER: listener.tensors, CENTROIDS: {"centroids_KD": points_KD}}
    voice = None
    if vocoder:
        speaking = read_vocoder(vocoder, vocoder_config, trust_pickle)
        typer.echo(f"vocoder: {speaking.note}")
        parts[VOCODER] = speaking.tensors
        voice = VocoderSettings(shape=speaking.shape, voices=speaking.voices, language=language, speaker=speaker)
    kept = odd_length or _CHOICES[0 if listener.appends_one else 1]
    features = FeatureSettings(
        layer=listener.config["num_hidden_layers"],
        normalise=listener.normalise,
        normalise_eps=listener.normalise_eps,
        odd_length="append_one" if kept == "append_one" else "as_is",
    )
    licences = list(licence or [])
    if any(name in str(source).lower() for source in (encoder, centroids, vocoder) for name in _SEAMLESS_FILES):
        licences.append(SEAMLESS_LICENCE)
    settings = HubertKmeansSettings(
        n_units=len(points_KD),
        features=features,
        network=listener.config,
        folds_runs=fold_runs,
        vocoder=voice,
        licences=licences,
    )
    codec = HubertKmeansCodec(settings, PartsInMemory(parts))
    folder = output or codec_home() / XLSR.name
    codec.save(folder)
    typer.echo(f"wrote {folder}: {describe(codec)}")
