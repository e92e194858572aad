"""Words and the units they are spoken with, one after the other: ``red <|3|><|17|> dog <|40|>``.

The work is done on frames (one unit each, unfolded), where time is plain; runs of equal units are
folded last. A word owns the frames whose centre lies in its span. Whatever the times are like, three
things hold for the segments: their units, joined, are the units of the utterance (unless silence is
dropped); every word appears once and in order; and none is empty.

Source: arXiv 2505.17496, whose samples have this form; what happens at the edges of words is ours.

Shapes: ``T`` frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from slm_plugin.records import WordSpan
from slm_plugin.vocabulary import units_to_text

Silence = Literal["previous", "next", "own", "drop"]
_SILENT = -1


@dataclass(frozen=True)
class Segment:
    """Words and the units behind them.

    Attributes:
        text: One word; several where a word has no frame of its own; empty for silence.
        units: Its units.
    """

    text: str
    units: tuple[int, ...]


def interleave(
    words: Sequence[WordSpan],
    units_T: Sequence[int],
    rate_hz: float,
    silence: Silence = "previous",
    fold: bool = False,
    first_centre_s: float | None = None,
    joiner: str = " ",
) -> list[Segment]:
    """Give every frame of an utterance to a word.

    Args:
        words: Words with their spans in seconds. Missing times are NaN: they are spread over the gap
            by the number of characters. Overlapping spans are cut in the middle of the overlap.
        units_T: Unit of every frame.
        rate_hz: Frames per second.
        silence: Where frames between words go: to the ``previous`` or the ``next`` word (at the ends
            to the one there is), into segments of their ``own``, or nowhere (``drop``).
        fold: Fold runs of equal units into one, across words too. A run belongs to the word that it
            starts in.
        first_centre_s: Centre of frame 0 in seconds; half a frame where not given.
        joiner: What stands between words: a blank, or nothing in languages written without.

    Returns:
        The segments. Words without frames go with the next word that has some, at the end with the
        last one. An utterance without frames gives one segment of all its words, and nothing when
        there are no words either.
    """
    centre = 0.5 / rate_hz if first_centre_s is None else first_centre_s
    n_frames = len(units_T)
    duration_s = 2 * centre + max(0, n_frames - 1) / rate_hz
    spans = _complete(words, duration_s)
    frames = list(enumerate(_fill(_owners(spans, n_frames, rate_hz, centre), silence)))
    if silence == "drop" and words:
        frames = [(frame, owner) for frame, owner in frames if owner != _SILENT]
    kept = []
    for position, (frame, owner) in enumerate(frames):
        if not fold or position == 0 or units_T[frame] != units_T[frames[position - 1][0]]:
            kept.append((frame, owner))
    runs = [
        (owner, tuple(int(units_T[frame]) for frame, _ in run))
        for owner, run in groupby(kept, key=lambda pair: pair[1])
    ]
    return _join([span.word for span in words], runs, joiner)


def render(segments: Sequence[Segment], joiner: str = " ") -> str:
    """Write segments as text: a word, its unit tokens, the joiner before the next word."""
    return joiner.join(segment.text + units_to_text(segment.units) for segment in segments)


def _complete(words: Sequence[WordSpan], duration_s: float) -> list[tuple[float, float]]:
    """Return spans that are finite, in order, inside the utterance and do not overlap."""
    known = [math.isfinite(word.start_s) and math.isfinite(word.end_s) for word in words]
    spans = [(min(word.start_s, word.end_s), max(word.start_s, word.end_s)) for word in words]
    position = 0
    while position < len(words):
        if known[position]:
            position += 1
            continue
        end = next((later for later in range(position, len(words)) if known[later]), len(words))
        left = spans[position - 1][1] if position else 0.0
        right = max(left, spans[end][0] if end < len(words) else duration_s)
        lengths = [max(1, len(words[gap].word)) for gap in range(position, end)]
        for gap, length in zip(range(position, end), lengths, strict=True):
            step = (right - left) * length / sum(lengths)
            start = spans[gap - 1][1] if gap > position else left
            spans[gap] = (start, start + step)
        position = end
    result: list[tuple[float, float]] = []
    for start, end_s in spans:
        start, end_s = (min(max(time, 0.0), duration_s) for time in (start, end_s))
        if result and start < result[-1][1]:
            before = result[-1]
            middle = max(before[0], (start + before[1]) / 2)
            result[-1] = (before[0], middle)
            start, end_s = middle, max(middle, end_s)
        result.append((start, end_s))
    return result


def _owners(spans: Sequence[tuple[float, float]], n_frames: int, rate_hz: float, centre_s: float) -> list[int]:
    """Return the word of every frame, ``_SILENT`` for none."""
    owners = [_SILENT] * n_frames
    for word, span in enumerate(spans):
        # the tolerance keeps a centre that lies on a border up to rounding from changing sides
        first, end = (min(n_frames, max(0, math.ceil((time - centre_s) * rate_hz - 1e-9))) for time in span)
        owners[first:end] = [word] * (end - first)
    return owners


def _fill(owners: Sequence[int], silence: Silence) -> list[int]:
    """Give silent frames to a neighbour, where the policy says so and there is one."""
    if silence in ("own", "drop"):
        return list(owners)
    forward = owners if silence == "previous" else owners[::-1]
    spoken = [owner for owner in forward if owner != _SILENT]
    current = spoken[0] if spoken else _SILENT
    filled = []
    for owner in forward:
        current = current if owner == _SILENT else owner
        filled.append(current)
    return filled if silence == "previous" else filled[::-1]


def _join(words: Sequence[str], runs: Sequence[tuple[int, tuple[int, ...]]], joiner: str) -> list[Segment]:
    """Put the words to their runs; words without one go ahead of the next word that has one."""
    segments: list[Segment] = []
    following = 0
    for owner, units in runs:
        if owner == _SILENT:
            segments.append(Segment("", units))
            continue
        segments.append(Segment(joiner.join(words[following : owner + 1]), units))
        following = owner + 1
    if following < len(words):
        rest = joiner.join(words[following:])
        spoken = [position for position, segment in enumerate(segments) if segment.text]
        if spoken:
            last = segments[spoken[-1]]
            segments[spoken[-1]] = Segment(last.text + joiner + rest, last.units)
        elif segments:
            segments[0] = Segment(rest, segments[0].units)
        else:
            segments.append(Segment(rest, ()))
    return segments
