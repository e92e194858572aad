"""What decides the wave of units, key by key."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from slm_plugin.strict import Strict


class VocoderShape(Strict):
    """Sizes of a unit HiFi-GAN; the defaults are those of Seamless' ``vocoder_v2``."""

    n_units: int = Field(default=10_000, ge=1)
    """Rows of the unit embedding."""

    unit_width: int = Field(default=1280, ge=1)
    """Width of the unit embedding."""

    n_languages: int = Field(default=36, ge=1)
    """Rows of the language embedding."""

    language_width: int = Field(default=256, ge=0)
    """Width of the language embedding; 0 for a vocoder of one language."""

    n_speakers: int = Field(default=200, ge=1)
    """Rows of the speaker embedding."""

    speaker_width: int = Field(default=256, ge=0)
    """Width of the speaker embedding; 0 for a vocoder of one speaker."""

    channels: int = Field(default=512, ge=2)
    """Channels before the first upsampling; each upsampling halves them."""

    upsample_rates: list[int] = Field(default_factory=lambda: [5, 4, 4, 2, 2])
    """Factors by which each stage upsamples; their product is the samples a frame lasts."""

    upsample_kernels: list[int] = Field(default_factory=lambda: [11, 8, 8, 4, 4])
    """Kernel size of each stage."""

    block_kernels: list[int] = Field(default_factory=lambda: [3, 7, 11])
    """Kernel sizes of the residual blocks of a stage."""

    block_dilations: list[list[int]] = Field(default_factory=lambda: [[1, 3, 5], [1, 3, 5], [1, 3, 5]])
    """Dilations of each residual block."""

    slope: float = 0.1
    """Slope of the leaky rectifiers below 0."""

    duration_kernel: int = Field(default=3, ge=1)
    """Kernel size of both convolutions of the duration predictor, in units."""

    @model_validator(mode="after")
    def _same_lengths(self) -> VocoderShape:
        if len(self.upsample_rates) != len(self.upsample_kernels) or not self.upsample_rates:
            raise ValueError("upsample_rates and upsample_kernels need one entry per stage.")
        if len(self.block_kernels) != len(self.block_dilations) or not self.block_kernels:
            raise ValueError("block_kernels and block_dilations need one entry per residual block.")
        return self

    @property
    def hop(self) -> int:
        """Samples that a frame lasts: 320 in ``vocoder_v2``."""
        return math.prod(self.upsample_rates)


class VoiceTable(Strict):
    """Which languages and speakers a vocoder knows."""

    languages: list[str] = Field(default_factory=list)
    """Language codes in the order of the embedding's rows; empty for a vocoder of one language."""

    first_speakers: dict[str, int] = Field(default_factory=dict)
    """Speaker that -1 stands for, by language."""


class VocoderSettings(Strict):
    """How units become a wave."""

    shape: VocoderShape = VocoderShape()
    """Sizes of the network."""

    voices: VoiceTable = VoiceTable()
    """Languages and speakers it knows."""

    language: str = "eng"
    """Language it speaks; of no effect in a vocoder of one language."""

    speaker: int = Field(default=-1, ge=-1)
    """Speaker number; -1 is the language's first (10 for English), of no effect in a vocoder of one speaker."""

    predict_durations: bool | None = None
    """Whether the frames a unit lasts are predicted, or 1. Unset: predicted where the codec folds runs."""

    max_duration: int = Field(default=50, ge=1)
    """Most frames a unit may last; predictions are clamped to 1..max_duration."""

    lookahead: int | None = Field(default=None, ge=0)
    """Frames to the right that a streamed frame waits for; unset for all that it depends on (21 in
    ``vocoder_v2``), which is exact. Fewer give the first sound earlier and change it."""

    first_block: int = Field(default=1, ge=1)
    """Frames that a stream's first piece of sound has at least; each next piece has at least twice as many."""

    last_block: int = Field(default=64, ge=1)
    """Frames at which that growth ends; larger pieces cost less in all and come later."""
