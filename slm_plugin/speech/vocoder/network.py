"""The vocoder's network: transformers' ``SeamlessM4Tv2CodeHifiGan``, every tensor of it accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from slm_plugin.speech.features.network import fill
from slm_plugin.speech.vocoder.settings import VocoderShape


def build_vocoder(shape: VocoderShape) -> nn.Module:
    """Return the network of a shape, without memory for its weights, in evaluation mode.

    A width of 0 makes the embedding of languages or speakers disappear, which gives the unit HiFi-GAN of
    fairseq's textless speech-to-speech translation.
    """
    from transformers import SeamlessM4Tv2Config
    from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2CodeHifiGan

    config = SeamlessM4Tv2Config(
        unit_hifi_gan_vocab_size=shape.n_units,
        unit_embed_dim=shape.unit_width,
        vocoder_num_langs=shape.n_languages,
        lang_embed_dim=shape.language_width,
        vocoder_num_spkrs=shape.n_speakers,
        spkr_embed_dim=shape.speaker_width,
        upsample_initial_channel=shape.channels,
        upsample_rates=list(shape.upsample_rates),
        upsample_kernel_sizes=list(shape.upsample_kernels),
        resblock_kernel_sizes=list(shape.block_kernels),
        resblock_dilation_sizes=[list(dilations) for dilations in shape.block_dilations],
        leaky_relu_slope=shape.slope,
        variance_predictor_kernel_size=shape.duration_kernel,
    )
    with torch.device("meta"):
        network: Any = SeamlessM4Tv2CodeHifiGan(config)
    # the reference forgets this: dropout stays on in its duration predictor
    return cast(nn.Module, network.eval())


def load_vocoder(shape: VocoderShape, tensors: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    """Return the network of a shape with its weights, each of the shape of the network's own of that name.

    Raises:
        CodecError: A tensor is missing, left over or of another shape: nothing is ever initialised anew.
    """
    network = build_vocoder(shape)
    held = dict(tensors)
    # embeddings of width 0 hold nothing, so no file has them
    for name, rows, width in (
        ("language_embedding.weight", shape.n_languages, shape.language_width),
        ("speaker_embedding.weight", shape.n_speakers, shape.speaker_width),
    ):
        if not width:
            held.setdefault(name, torch.zeros(rows, 0))
    fill(network, held, where)
    return network
