"""A vocoder that speaks while its units arrive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slm_plugin.speech.vocoder.synthesis import Synthesiser
from slm_plugin.vocabulary import check_range


class VocoderStream:
    """Synthesises one utterance; how its units are cut into pushes changes nothing.

    A unit's duration is known when the units that decide it have come (two behind it), a frame's samples
    when the frames they depend on have (21 in ``vocoder_v2``). Each piece of sound is calculated together
    with the frames around it, so small pieces cost more: the first is small, the next ones double.

    With ``lookahead`` below the vocoder's reach the sound comes earlier and is no longer exactly that of
    the whole; how different, ``benchmarks/vocoder.py`` measures.

    Args:
        synthesiser: The vocoder with its voice.
    """

    def __init__(self, synthesiser: Synthesiser) -> None:
        settings = synthesiser.settings
        self._synthesiser = synthesiser
        reach = synthesiser.reach
        self._left = reach.left
        self._lookahead = reach.right if settings.lookahead is None else min(settings.lookahead, reach.right)
        self._block = settings.first_block
        # units whose duration is not known yet, and before them those that still decide durations
        self._units: list[int] = []
        self._n_timed = 0
        # the frames from number `_first` on; those before `_spoken` are context
        self._frames: list[int] = []
        self._first = 0
        self._spoken = 0

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take further units and return the samples that are final now, possibly none.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``; nothing of this push was taken.
        """
        values = [int(unit) for unit in units]
        check_range(values, self._synthesiser.settings.shape.n_units)
        self._units += values
        self._time(len(self._units) - self._synthesiser.duration_reach)
        n_final = self._end - self._lookahead - self._spoken
        if n_final < self._block:
            return np.zeros(0, np.float32)
        self._block = min(2 * self._block, self._synthesiser.settings.last_block)
        return self._speak(n_final)

    def finish(self) -> np.ndarray:
        """Return the remaining samples; the stream is used up afterwards."""
        self._time(len(self._units))
        return self._speak(self._end - self._spoken)

    @property
    def _end(self) -> int:
        """Frames known so far."""
        return self._first + len(self._frames)

    def _time(self, n_known: int) -> None:
        """Turn the units up to ``n_known`` into frames."""
        if n_known <= self._n_timed:
            return
        durations = self._synthesiser.durations(self._units)[self._n_timed : n_known]
        new = self._units[self._n_timed : n_known]
        self._frames += np.repeat(np.asarray(new, np.int64), durations).tolist()
        passed = max(0, n_known - self._synthesiser.duration_reach)
        self._units = self._units[passed:]
        self._n_timed = n_known - passed

    def _speak(self, n_frames: int) -> np.ndarray:
        """Return the samples of the next frames."""
        end = self._spoken + n_frames
        seen_first = max(0, self._spoken - self._left)
        seen_end = min(self._end, end + self._synthesiser.reach.right)
        wave = self._synthesiser.wave_of_frames(self._frames[seen_first - self._first : seen_end - self._first])
        hop = self._synthesiser.hop
        part = wave[(self._spoken - seen_first) * hop : (end - seen_first) * hop]
        self._spoken = end
        kept_from = max(0, end - self._left)
        self._frames = self._frames[kept_from - self._first :]
        self._first = kept_from
        return part
