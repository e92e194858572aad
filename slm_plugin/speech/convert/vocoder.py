"""A unit vocoder from Seamless' or fairseq's ``.pt`` file, or from a Seamless checkpoint in transformers' form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm_plugin.errors import CodecError
from slm_plugin.speech.convert.byte_ranges import RemoteFolder, fetch_tensors
from slm_plugin.speech.convert.pickles import load_checkpoint, tensors_of
from slm_plugin.speech.vocoder.network import load_vocoder
from slm_plugin.speech.vocoder.settings import VocoderShape, VoiceTable
from slm_plugin.speech.vocoder.voices import seamless_voices

PREFIX = "vocoder."
"""Where the vocoder's tensors are in a whole Seamless checkpoint."""

_NAMES = (
    (r"^ups\.", "hifi_gan.upsampler."),
    (r"^(conv_pre|conv_post|resblocks)\.", r"hifi_gan.\1."),
    (r"^lang\.", "language_embedding."),
    (r"^spkr\.", "speaker_embedding."),
    (r"^dict\.", "unit_embedding."),
    (r"^dur_predictor\.(conv[12])\.0\.", r"dur_predictor.\1."),
)
# kernel size -> the rate by which such a stage of the published vocoders upsamples
_RATES = {11: 5, 8: 4, 4: 2}


@dataclass(frozen=True)
class Vocoder:
    """A vocoder as it is kept.

    Attributes:
        shape: Its sizes.
        voices: Its languages and speakers.
        tensors: Its weights, under the names of transformers.
        note: What was read, in words.
    """

    shape: VocoderShape
    voices: VoiceTable
    tensors: dict[str, torch.Tensor]
    note: str


def read_vocoder(source: str, config: Path | None, trusted: bool) -> Vocoder:
    """Read a vocoder.

    Args:
        source: ``vocoder_v2.pt``, a fairseq unit HiFi-GAN, or a folder or URL of a Seamless checkpoint in
            transformers' form, of which only the vocoder's bytes are read.
        config: JSON that came with a fairseq unit HiFi-GAN.
        trusted: Whether a ``.pt`` file may run code.

    Raises:
        CodecError: It is missing or damaged, or a tensor is missing, left over or of another shape.
    """
    path = Path(source)
    vocoder = _from_file(path, config, trusted) if path.is_file() else _from_folder(source)
    # built once here, so that a folder that cannot be used is never written
    load_vocoder(vocoder.shape, vocoder.tensors, source)
    return vocoder


def _from_folder(source: str) -> Vocoder:
    folder = RemoteFolder(source)
    raw = folder.json("config.json")
    fetched = fetch_tensors(folder, PREFIX)
    tensors = _folded(fetched.tensors)
    given = {
        "upsample_rates": raw.get("upsample_rates"),
        "block_dilations": raw.get("resblock_dilation_sizes"),
        "slope": raw.get("leaky_relu_slope"),
    }
    shape = _shape(tensors, given, source)
    note = f"{len(tensors)} tensors, {fetched.n_bytes / 1e6:.0f} MB in {fetched.n_requests} reads"
    return Vocoder(shape, _voices(folder, shape), tensors, note)


def _voices(folder: RemoteFolder, shape: VocoderShape) -> VoiceTable:
    """Return the table of ``vocoder_v2``, with the checkpoint's own languages where it lists them."""
    voices = seamless_voices()
    listed: dict[str, int] = {}
    if folder.has("generation_config.json"):
        listed = folder.json("generation_config.json").get("vocoder_lang_code_to_id") or {}
    if not listed:
        return _known_voices(shape)
    languages = sorted(listed, key=lambda language: listed[language])
    first = {name: number for name, number in voices.first_speakers.items() if name in listed}
    return VoiceTable(languages=languages, first_speakers=first)


def _from_file(path: Path, config: Path | None, trusted: bool) -> Vocoder:
    held = tensors_of(load_checkpoint(path, trusted), ("model", "generator"), path)
    tensors = _folded({_renamed(name.removeprefix("code_generator.")): tensor for name, tensor in held.items()})
    said: Mapping[str, Any] = {}
    if config is not None:
        try:
            said = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CodecError(f"{config} cannot be read: {error}.") from None
    given = {"upsample_rates": said.get("upsample_rates"), "block_dilations": said.get("resblock_dilation_sizes")}
    shape = _shape(tensors, given, str(path))
    return Vocoder(shape, _known_voices(shape), tensors, f"{len(tensors)} tensors")


def _known_voices(shape: VocoderShape) -> VoiceTable:
    """Return the table of ``vocoder_v2`` where it fits; other languages go by their numbers."""
    voices = seamless_voices()
    if not shape.language_width or shape.n_languages == len(voices.languages):
        return voices
    return VoiceTable(languages=[str(number) for number in range(shape.n_languages)])


def _renamed(name: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            return renamed
    return name


def _folded(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with weight norm multiplied out: ``w = g v / |v|``, norms over all but the first axis."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v"):
            scale = tensors.get(f"{name[:-1]}g")
            if scale is None:
                raise CodecError(f"the vocoder has {name} and no {name[:-1]}g.")
            norm = torch.linalg.vector_norm(tensor.float(), dim=(1, 2), keepdim=True)
            found[name[:-2]] = tensor.float() / norm * scale.float()
        else:
            found[name] = tensor
    return found


def _shape(tensors: Mapping[str, torch.Tensor], given: Mapping[str, Any], where: str) -> VocoderShape:
    """Read the sizes off the tensors; what they do not show is given, or that of ``vocoder_v2``."""
    kernels = _each(tensors, "hifi_gan.upsampler.{}.weight")
    n_blocks = len({name.split(".")[2] for name in tensors if name.startswith("hifi_gan.resblocks.")})
    n_kinds = n_blocks // len(kernels) if kernels else 0
    if not n_kinds or "unit_embedding.weight" not in tensors or "dur_predictor.conv1.weight" not in tensors:
        raise CodecError(f"{where} is not a unit HiFi-GAN with a duration predictor.")
    rates = given.get("upsample_rates") or [_RATES.get(kernel, 0) for kernel in kernels]
    if 0 in rates:
        raise CodecError(f"{where}: upsampling kernels {kernels} do not say their rates; give --vocoder-config.")
    blocks = [tensors[f"hifi_gan.resblocks.{kind}.convs1.0.weight"].shape[2] for kind in range(n_kinds)]
    languages, speakers = tensors.get("language_embedding.weight"), tensors.get("speaker_embedding.weight")
    units = tensors["unit_embedding.weight"]
    return VocoderShape(
        n_units=units.shape[0],
        unit_width=units.shape[1],
        n_languages=1 if languages is None else languages.shape[0],
        language_width=0 if languages is None else languages.shape[1],
        n_speakers=1 if speakers is None else speakers.shape[0],
        speaker_width=0 if speakers is None else speakers.shape[1],
        channels=tensors["hifi_gan.upsampler.0.weight"].shape[0],
        upsample_rates=list(rates),
        upsample_kernels=kernels,
        block_kernels=blocks,
        block_dilations=[list(each) for each in given.get("block_dilations") or [[1, 3, 5]] * n_kinds],
        slope=given.get("slope") or 0.1,
        duration_kernel=tensors["dur_predictor.conv1.weight"].shape[2],
    )


def _each(tensors: Mapping[str, torch.Tensor], pattern: str) -> list[int]:
    sizes: list[int] = []
    while (name := pattern.format(len(sizes))) in tensors:
        sizes.append(tensors[name].shape[2])
    return sizes
