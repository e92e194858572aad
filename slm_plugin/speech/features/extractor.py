"""Waves -> features: ragged batches equal singles, long waves go through in windows.

Shapes: ``N`` samples, ``T`` frames, ``B`` windows, ``D`` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slm_plugin.speech.features.grid import FrameGrid, Window, windows
from slm_plugin.speech.features.network import settle_weight_norm
from slm_plugin.speech.features.precision import check_finite, check_precision, in_precision
from slm_plugin.speech.features.settings import FeatureSettings

SAMPLE_RATE_HZ = 16_000
GPU_BATCH_S = 60.0
"""Seconds of sound, padding included, that go through the network at once on a GPU. A CPU takes waves one at a
time: there a batch costs its padding and gains nothing (``benchmarks/units.py``)."""


class FeatureExtractor:
    """Features of one layer of a speech network.

    Args:
        settings: What decides the features.
        network: Network of :func:`slm_plugin.speech.features.network.build_network` with its weights, float32;
            it is changed into what calculates.
        config: What it was built from.
        device: Where it calculates.
        batch_s: Seconds of sound, padding included, that go through the network at once; 0 for one wave at a time,
            None for what suits the device.

    Raises:
        CodecError: The device cannot calculate in the precision of the settings.
    """

    def __init__(
        self,
        settings: FeatureSettings,
        network: nn.Module,
        config: Mapping[str, Any],
        device: torch.device,
        batch_s: float | None = None,
    ) -> None:
        check_precision(settings, device)
        self.settings = settings
        self.device = device
        self.grid = FrameGrid.of(config["conv_kernel"], config["conv_stride"])
        self.rate_hz = SAMPLE_RATE_HZ / self.grid.hop
        settle_weight_norm(network)
        self._network: Any = in_precision(network.to(device), settings)
        self._dtype = getattr(torch, settings.dtype)
        # normalising over time lets padding into the frames, so such a front end takes one length at a time
        self._front_in_batches = config["feat_extract_norm"] == "layer"
        # transformers' WavLM gives torch two masks of different types, which it warns of
        self._ragged = config["model_type"] != "wavlm"
        if batch_s is None:
            batch_s = 0.0 if device.type == "cpu" else GPU_BATCH_S
        self._batch_samples = int(batch_s * SAMPLE_RATE_HZ)

    def features(self, waves: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Return the features of each wave, ``(N,)`` at 16 kHz: float32 ``(T, D)``.

        ``T = floor((N - 400) / 320) + 1``, or 0 where that is negative; N with the sample that ``odd_length`` appends.

        Raises:
            CodecError: The features are no finite numbers.
        """
        prepared = [self._prepare(wave_N) for wave_N in waves]
        pieces = [(number, window) for number, wave_N in enumerate(prepared) for window in self._windows(len(wave_N))]
        kept: dict[tuple[int, int], torch.Tensor] = {}
        for batch in self._batches(pieces):
            cuts = [self._cut(prepared[number], window) for number, window in batch]
            for (number, window), frames_TD in zip(batch, self._run(cuts), strict=True):
                kept[number, window.keep_first] = frames_TD[
                    window.keep_first - window.first : window.keep_end - window.first
                ]
        joined: list[list[torch.Tensor]] = [[] for _ in waves]
        for number, window in pieces:
            joined[number].append(kept[number, window.keep_first])
        width = self._network.config.hidden_size
        empty = torch.zeros(0, width, device=self.device)
        features = [torch.cat(parts) if parts else empty for parts in joined]
        check_finite(features, self.settings)
        return features

    def _prepare(self, wave_N: np.ndarray) -> torch.Tensor:
        wave = torch.from_numpy(np.array(wave_N, np.float32))
        if self.settings.odd_length == "append_one" and len(wave) % 2:
            wave = functional.pad(wave, (0, 1), value=1.0)
        if self.settings.normalise and len(wave):
            wave = functional.layer_norm(wave, wave.shape, eps=self.settings.normalise_eps)
        return wave

    def _windows(self, n_samples: int) -> list[Window]:
        longest = max(1, round(self.settings.window_s * self.rate_hz))
        context = round(self.settings.context_s * self.rate_hz)
        return windows(self.grid.n_frames(n_samples), longest, context)

    def _cut(self, wave_N: torch.Tensor, window: Window) -> torch.Tensor:
        """Return the samples of a window; the last one has those behind the last frame too, which GroupNorm sees."""
        seen = self.grid.samples(window.first, window.end)
        return wave_N[seen.start :] if window.end == self.grid.n_frames(len(wave_N)) else wave_N[seen]

    def _batches(self, pieces: Sequence[tuple[int, Window]]) -> list[list[tuple[int, Window]]]:
        """Group windows of similar length, so that little of a batch is padding."""
        batches: list[list[tuple[int, Window]]] = []
        for piece in sorted(pieces, key=lambda piece: _length(piece[1]), reverse=True):
            longest = _length((batches[-1][0] if batches else piece)[1])
            room = self._batch_samples // (longest * self.grid.hop)
            fits = self._ragged or _length(piece[1]) == longest
            if batches and len(batches[-1]) < room and fits:
                batches[-1].append(piece)
            else:
                batches.append([piece])
        return batches

    @torch.inference_mode()
    def _run(self, cuts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the frames of waves that go through the network together."""
        lengths = [self.grid.n_frames(len(cut)) for cut in cuts]
        with torch.autocast(self.device.type, enabled=False):
            states_BTD = self._network.feature_projection(self._front(cuts))
            if isinstance(states_BTD, tuple):
                states_BTD = states_BTD[0]
            mask_BT = None
            if len(set(lengths)) > 1:
                ends = torch.tensor(lengths, device=self.device)[:, None]
                mask_BT = torch.arange(states_BTD.shape[1], device=self.device)[None] < ends
            states_BTD = self._network.encoder(states_BTD, attention_mask=mask_BT).last_hidden_state
        return [states_TD[:length].float() for states_TD, length in zip(states_BTD, lengths, strict=True)]

    def _front(self, cuts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what the convolutions make of waves, ``(B, T, C)``, padded by zeros."""
        pad = nn.utils.rnn.pad_sequence
        if self._front_in_batches or len({len(cut) for cut in cuts}) == 1:
            waves_BN = pad(list(cuts), batch_first=True).to(self.device, self._dtype)
            frames_BCT: torch.Tensor = self._network.feature_extractor(waves_BN)
            return frames_BCT.transpose(1, 2)
        each = [self._network.feature_extractor(cut[None].to(self.device, self._dtype))[0].T for cut in cuts]
        return pad(each, batch_first=True)


def _length(window: Window) -> int:
    return window.end - window.first
