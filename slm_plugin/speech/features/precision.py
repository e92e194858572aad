"""Networks that calculate in fewer bits, and the checks that come with them."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import nn

from slm_plugin.errors import CodecError
from slm_plugin.speech.features.settings import FeatureSettings


def check_precision(settings: FeatureSettings, device: torch.device) -> None:
    """Refuse a precision that a device cannot calculate in.

    Raises:
        CodecError: float16 on a CPU, 8 bits elsewhere than on one, or both at once.
    """
    if settings.int8 and settings.dtype != "float32":
        raise CodecError(f"int8 calculates the rest in float32: set dtype to float32, not {settings.dtype}.")
    if settings.int8 and device.type != "cpu":
        raise CodecError(f"int8 works on CPUs only, the network is on {device}; use dtype: bfloat16 there.")
    if settings.dtype == "float16" and device.type == "cpu":
        raise CodecError("float16 needs a GPU; use dtype: float32 or bfloat16 on a CPU.")


def in_precision(network: nn.Module, settings: FeatureSettings) -> nn.Module:
    """Return the network in the precision of the settings; weights are rounded, nothing is trained.

    With ``int8``, weights of linear layers are rounded to 8 bits per layer once, and their inputs per call.

    Raises:
        CodecError: The installed torch has no 8-bit layers.
    """
    if settings.int8:
        return _int8(network.float())
    return network.to(cast(torch.dtype, getattr(torch, settings.dtype)))


def _int8(network: nn.Module) -> nn.Module:
    quantise = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantise is None:
        raise CodecError(f"torch {torch.__version__} has no quantize_dynamic; set int8 to false.")
    with warnings.catch_warnings():
        # its successor torchao is only as fast on CPUs when the network is compiled
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        return cast(nn.Module, quantise(network, {nn.Linear}, dtype=torch.qint8))


def check_finite(features: list[torch.Tensor], settings: FeatureSettings) -> None:
    """Refuse features, ``(T, D)`` each, that are no numbers: every unit would be 0 without a sign of it.

    Raises:
        CodecError: A feature is infinite or not a number.
    """
    if all(bool(torch.isfinite(part).all()) for part in features):
        return
    advice = "use dtype: bfloat16 or float32" if settings.dtype == "float16" else "the wave or the weights are damaged"
    raise CodecError(f"features that are no finite numbers came out of the network in {settings.dtype}; {advice}.")
