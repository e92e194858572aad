"""Many waves or sequences at once, whatever codec it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slm_plugin.records import Units
from slm_plugin.speech.mel_kmeans import MelKmeansCodec, load_tiny
from slm_plugin.speech.protocol import BatchedCodec, decode_batch, encode_batch


class Together(MelKmeansCodec):
    """A codec that notes how many it was asked for at once."""

    asked: tuple[int, ...] = ()

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[Units]:
        self.asked += (len(waves),)
        return [self.encode(wave_N) for wave_N in waves]

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        self.asked += (len(sequences),)
        return [self.decode(units) for units in sequences]


def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.5, 0.5, n_samples).astype(np.float32) for n_samples in (4_800, 0, 9_600)]


def test_a_codec_without_batches_is_asked_one_by_one() -> None:
    tiny = load_tiny()
    assert not isinstance(tiny, BatchedCodec)
    units = encode_batch(tiny, waves())
    assert units == [tiny.encode(wave_N) for wave_N in waves()]
    assert [len(one.values) > 0 for one in units] == [True, False, True]
    for wave_N, one in zip(decode_batch(tiny, [one.values for one in units]), units, strict=True):
        np.testing.assert_array_equal(wave_N, tiny.decode(one.values))


def test_a_codec_with_batches_is_asked_once() -> None:
    tiny = load_tiny()
    together = Together(tiny.settings, dict(tiny._tensors))
    units = encode_batch(together, waves())
    assert units == encode_batch(tiny, waves())
    decode_batch(together, [one.values for one in units])
    assert together.asked == (3, 3)
