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
        # frames in front of the first that is spoken next, and how many are
        self._due = (0, 0)

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Take further units and return the samples that are final now, ``(N,)`` float32, possibly none.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``; nothing of this push was taken.
        """
        return self._speak(self.take(units, last=False))

    def finish(self) -> np.ndarray:
        """Return the remaining samples, ``(N,)`` float32; the stream is used up afterwards."""
        return self._speak(self.take((), last=True))

    @property
    def synthesiser(self) -> Synthesiser:
        """The vocoder with its voice."""
        return self._synthesiser

    def take(self, units: Sequence[int], last: bool) -> list[int]:
        """Take further units; return the frames whose wave :meth:`give` needs to speak on, possibly none.

        Args:
            units: What comes next.
            last: Whether nothing comes behind it.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``; nothing was taken.
        """
        values = [int(unit) for unit in units]
        check_range(values, self._synthesiser.settings.shape.n_units)
        self._units += values
        n_unsure = 0 if last else self._synthesiser.duration_reach
        self._time(len(self._units) - n_unsure)
        n_final = self._end - (0 if last else self._lookahead) - self._spoken
        if n_final < (1 if last else self._block):
            self._due = (0, 0)
            return []
        if not last:
            self._block = min(2 * self._block, self._synthesiser.settings.last_block)
        end = self._spoken + n_final
        seen_first = max(0, self._spoken - self._left)
        seen_end = min(self._end, end + self._synthesiser.reach.right)
        self._due = (self._spoken - seen_first, n_final)
        return self._frames[seen_first - self._first : seen_end - self._first]

    def give(self, wave_N: np.ndarray) -> np.ndarray:
        """Return the samples that are final, ``(N,)``, given the wave of the frames that :meth:`take` returned."""
        n_before, n_frames = self._due
        self._due = (0, 0)
        hop = self._synthesiser.hop
        part = wave_N[n_before * hop : (n_before + n_frames) * hop]
        self._spoken += n_frames
        kept_from = max(0, self._spoken - self._left)
        self._frames = self._frames[kept_from - self._first :]
        self._first = kept_from
        return part

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

    def _speak(self, frames: list[int]) -> np.ndarray:
        return self.give(self._synthesiser.wave_of_frames(frames)) if frames else np.zeros(0, np.float32)


def advance(
    streams: Sequence[VocoderStream], pushes: Sequence[Sequence[int]], last: Sequence[bool]
) -> list[np.ndarray]:
    """Move several streams on, those of one voice together; see :func:`slm_plugin.speech.protocol.advance`.

    Returns:
        The samples of each stream that are final now, ``(N,)`` float32, possibly none.

    Raises:
        VocabularyError: A unit is outside ``[0, n_units)``; nothing was taken.
    """
    for stream, units in zip(streams, pushes, strict=True):
        check_range([int(unit) for unit in units], stream.synthesiser.settings.shape.n_units)
    framed = [stream.take(units, end) for stream, units, end in zip(streams, pushes, last, strict=True)]
    # a voice may have several synthesisers, which share their network
    voices: dict[tuple[str, int], list[int]] = {}
    for number, stream in enumerate(streams):
        if framed[number]:
            settings = stream.synthesiser.settings
            voices.setdefault((settings.language, settings.speaker), []).append(number)
    parts = [np.zeros(0, np.float32)] * len(streams)
    for numbers in voices.values():
        waves = streams[numbers[0]].synthesiser.waves_of_frames([framed[number] for number in numbers])
        for number, wave_N in zip(numbers, waves, strict=True):
            parts[number] = streams[number].give(wave_N)
    return parts
