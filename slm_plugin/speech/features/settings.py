"""What decides the features of a wave, key by key."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from slm_plugin.strict import Strict


class FeatureSettings(Strict):
    """How waves become features; all of it decides which units come out."""

    layer: int = Field(ge=1)
    """Transformer layer whose output is the feature, counted from 1; later layers are not kept."""

    normalise: bool = True
    """Whether a wave is shifted and scaled to mean 0 and variance 1 first."""

    normalise_eps: float = Field(default=1e-5, gt=0.0)
    """Added to the variance: 1e-5 in fairseq, 1e-7 in transformers' extractor; differs on near-silence."""

    odd_length: Literal["as_is", "append_one"] = "as_is"
    """What happens to waves of an odd number of samples: nothing, or one sample of 1.0 is appended before
    normalising, as the collater of seamless_communication does."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the network calculates in; distances are always float32. float16 needs a GPU."""

    int8: bool = False
    """Whether the network's linear layers calculate in 8 bits: faster on CPUs, other units. CPU only."""

    window_s: float = Field(default=30.0, ge=1.0)
    """Longest stretch, in seconds, that the network sees at once without context; longer waves are cut."""

    context_s: float = Field(default=4.0, ge=0.0)
    """Seconds that a window sees to either side of what is kept of it."""
