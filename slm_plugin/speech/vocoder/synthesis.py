"""Units -> frames -> waves: single, in masked batches, and long ones piece by piece.

Source: Polyak et al. 2021, arXiv 2104.00355 (HiFi-GAN on units); SeamlessM4T v2, arXiv 2312.05187.

Shapes: ``B`` utterances, ``T`` frames, ``C`` channels, ``N = T * hop`` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slm_plugin.speech.features.centroids import full_float32
from slm_plugin.speech.vocoder.reach import reach
from slm_plugin.speech.vocoder.settings import VocoderSettings
from slm_plugin.speech.vocoder.voices import voice_numbers

PIECE_FRAMES = 3000
"""Frames of one utterance that go through the network at once: a minute at 50 Hz."""

GPU_BATCH_FRAMES = 3000
"""Frames of several utterances, padding included, that go through the network at once on a GPU. A CPU takes
utterances one at a time: there a batch gains nothing (``benchmarks/vocoder.py``)."""


class Synthesiser:
    """A vocoder with one voice.

    Args:
        settings: Voice, durations, streaming.
        network: Network of :func:`slm_plugin.speech.vocoder.network.load_vocoder`, on its device.
        predict_durations: Whether the frames a unit lasts are predicted, or 1.
        batch_frames: Frames of several utterances, padding included, that go through the network at once; 0 for
            one utterance at a time, None for what suits the device.
        piece_frames: Frames of one utterance that go through the network at once.

    Raises:
        CodecError: The vocoder does not have that language or speaker.
    """

    def __init__(
        self,
        settings: VocoderSettings,
        network: nn.Module,
        predict_durations: bool,
        batch_frames: int | None = None,
        piece_frames: int = PIECE_FRAMES,
    ) -> None:
        self.settings = settings
        self.network = cast(Any, network)
        self.predict_durations = predict_durations
        self.hop = settings.shape.hop
        self.reach = reach(settings.shape)
        # two convolutions decide a duration
        self.duration_reach = 2 * ((settings.shape.duration_kernel - 1) // 2) if predict_durations else 0
        self.device = next(network.parameters()).device
        suits = 0 if self.device.type == "cpu" else GPU_BATCH_FRAMES
        self._batch_frames = suits if batch_frames is None else batch_frames
        self._piece_frames = piece_frames
        language, speaker = (torch.tensor([number], device=self.device) for number in voice_numbers(settings))
        with torch.inference_mode():
            self._language_1C = self.network.language_embedding(language)
            self._speaker_1C = self.network.speaker_embedding(speaker)

    @torch.inference_mode()
    def durations(self, units: Sequence[int]) -> list[int]:
        """Return the frames that each unit lasts: ``round(e^d - 1)`` of the prediction d, clamped, or 1."""
        if not self.predict_durations or not len(units):
            return [1] * len(units)
        rows_1TC = self.network.unit_embedding(torch.tensor([list(units)], device=self.device))
        log_1T = self.network.dur_predictor(rows_1TC)
        frames_1T = torch.round(torch.expm1(log_1T.float())).clamp(1, self.settings.max_duration)
        return [int(frames) for frames in frames_1T[0].tolist()]

    def frames(self, units: Sequence[int]) -> list[int]:
        """Return the unit of every frame."""
        return np.repeat(np.asarray(units, np.int64), self.durations(units)).tolist()

    def wave(self, units: Sequence[int]) -> np.ndarray:
        """Return the wave of units, ``(N,)`` float32 in [-1, 1]; of any length within bounded memory."""
        return self.wave_of_frames(self.frames(units))

    def wave_of_frames(self, frames: Sequence[int]) -> np.ndarray:
        """Return the wave of frames, ``(N,)`` float32; long ones in pieces that see all the frames they depend on."""
        parts = []
        for first in range(0, len(frames), self._piece_frames):
            end = min(first + self._piece_frames, len(frames))
            seen_first, seen_end = max(0, first - self.reach.left), min(len(frames), end + self.reach.right)
            wave = self._plain(frames[seen_first:seen_end])
            parts.append(wave[(first - seen_first) * self.hop : (end - seen_first) * self.hop])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def waves(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the wave of each unit sequence, ``(N,)``, as ``wave`` does within 1e-5, similar lengths together."""
        return self.waves_of_frames([self.frames(units) for units in sequences])

    def waves_of_frames(self, framed: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the wave of each sequence of frames, ``(N,)``, as ``wave_of_frames`` does within 1e-5."""
        found: dict[int, np.ndarray] = {}
        batch: list[int] = []
        # sorted, so that little of a batch is padding
        for number in sorted(range(len(framed)), key=lambda number: -len(framed[number])):
            longest = len(framed[batch[0]]) if batch else 0
            if batch and longest * (len(batch) + 1) > self._batch_frames:
                found |= zip(batch, self._batch([framed[member] for member in batch]), strict=True)
                batch = []
            if not framed[number] or 2 * len(framed[number]) > self._batch_frames:
                found[number] = self.wave_of_frames(framed[number])
            else:
                batch.append(number)
        if batch:
            found |= zip(batch, self._batch([framed[member] for member in batch]), strict=True)
        return [found[number] for number in range(len(framed))]

    @torch.inference_mode()
    def _plain(self, frames: Sequence[int]) -> np.ndarray:
        with full_float32(self.device):
            wave_1N = self.network.hifi_gan(self._inputs(torch.tensor([list(frames)], device=self.device)))
        return np.asarray(wave_1N[0].cpu().numpy(), np.float32)

    def _inputs(self, frames_BT: torch.Tensor) -> torch.Tensor:
        """Return what the network takes: language, unit and speaker of every frame, ``(B, C, T)``."""
        units_BCT = self.network.unit_embedding(frames_BT).transpose(1, 2)
        batch, _, length = units_BCT.shape
        language_BCT, speaker_BCT = (
            row_1C[:, :, None].expand(batch, -1, length) for row_1C in (self._language_1C, self._speaker_1C)
        )
        return torch.cat([language_BCT, units_BCT, speaker_BCT], 1)

    @torch.inference_mode()
    def _batch(self, framed: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the waves of several utterances that go through the network together.

        A single utterance meets zeros at its end in every convolution. In a batch its padding would come to
        life in the first one, so that it is set to zero again before each.
        """
        lengths_B = torch.tensor([len(frames) for frames in framed], device=self.device)
        rows = [torch.tensor(list(frames), device=self.device) for frames in framed]
        frames_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with full_float32(self.device):
            waves_BN = self._masked(self._inputs(frames_BT), lengths_B).cpu().numpy()
        return [np.array(wave[: len(frames) * self.hop]) for wave, frames in zip(waves_BN, framed, strict=True)]

    def _masked(self, states: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        network = self.network.hifi_gan
        slope, n_blocks = network.leaky_relu_slope, network.num_kernels
        mask, rate = _mask(lengths_B, states.shape[2]), 1
        states = network.conv_pre(states * mask)
        for stage, upsample in enumerate(network.upsampler):
            states = upsample(functional.leaky_relu(states, slope) * mask)
            rate *= upsample.stride[0]
            mask = _mask(lengths_B * rate, states.shape[2])
            blocks = network.resblocks[stage * n_blocks : (stage + 1) * n_blocks]
            states = sum(_masked_block(block, states, mask) for block in blocks) / n_blocks
        return torch.tanh(network.conv_post(functional.leaky_relu(states) * mask))[:, 0]


def _masked_block(block: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    for dilated, plain in zip(block.convs1, block.convs2, strict=True):
        inner = dilated(functional.leaky_relu(states, block.leaky_relu_slope) * mask)
        states = plain(functional.leaky_relu(inner, block.leaky_relu_slope) * mask) + states
    return states


def _mask(lengths_B: torch.Tensor, longest: int) -> torch.Tensor:
    """Return 1 before each row's end and 0 behind it, ``(B, 1, longest)``."""
    return (torch.arange(longest, device=lengths_B.device)[None] < lengths_B[:, None])[:, None].float()
