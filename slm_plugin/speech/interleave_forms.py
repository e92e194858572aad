"""Other ways to lay out words and units: fixed blocks, phrases, and spans of either.

Whatever the form, the text of all segments joined is the text, and their units joined are the units (spans
of either keep one of the two for each word); no segment is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slm_plugin.speech.interleave import Segment

PHRASE_ENDS = ".,;:!?。，、；：！？…"
"""A word that ends in one of these ends its phrase."""

_QUOTES = "\"'”’»)]」』）"


def by_ratio(pieces: Sequence[str], units: Sequence[int], n_pieces: int, n_units: int) -> list[Segment]:
    """Alternate blocks of fixed sizes: ``n_pieces`` of text, ``n_units`` units, and so on.

    When one of the two runs out, the rest of the other follows in one block.

    Args:
        pieces: Text tokens or words, verbatim: joined without anything between they are the text.
        units: All units.
        n_pieces: Pieces per block of text.
        n_units: Units per block of units; at 50 units a second text leads at about 1 : 10.

    Source: GLM-4-Voice (arXiv 2412.02612), 13 text tokens and 26 speech tokens at 12.5 Hz.
    """
    assert n_pieces >= 1, n_pieces
    assert n_units >= 1, n_units
    segments: list[Segment] = []
    text, unit = 0, 0
    while text < len(pieces) or unit < len(units):
        text_end = text + n_pieces if unit < len(units) else len(pieces)
        # the units that are left when the text has ended come with its last block
        unit_end = unit + n_units if text_end < len(pieces) else len(units)
        segments.append(Segment("".join(pieces[text:text_end]), tuple(int(value) for value in units[unit:unit_end])))
        text, unit = min(text_end, len(pieces)), min(unit_end, len(units))
    return segments


def by_phrase(segments: Sequence[Segment], max_words: int, joiner: str = " ") -> list[Segment]:
    """Join segments of words to phrases, each with the units of all its words behind it.

    A phrase ends after punctuation (:data:`PHRASE_ENDS`), before a segment of silence, and after ``max_words``.

    Args:
        segments: Words with their units, as :func:`slm_plugin.speech.interleave.interleave` gives them.
        max_words: Longest phrase, in segments.
        joiner: What stands between words.
    """
    assert max_words >= 1, max_words
    phrases: list[Segment] = []
    open_words: list[Segment] = []

    def close() -> None:
        if open_words:
            text = joiner.join(segment.text for segment in open_words)
            phrases.append(Segment(text, tuple(unit for segment in open_words for unit in segment.units)))
            open_words.clear()

    for segment in segments:
        if not segment.text:
            close()
            phrases.append(segment)
            continue
        open_words.append(segment)
        if len(open_words) == max_words or segment.text.rstrip().rstrip(_QUOTES).endswith(tuple(PHRASE_ENDS)):
            close()
    close()
    return phrases


def random_spans(
    segments: Sequence[Segment],
    speech_share: float,
    mean_words: float,
    generator: np.random.Generator,
    joiner: str = " ",
) -> list[Segment]:
    """Cut an utterance into spans and keep of each either the text or the units, alternately.

    Lengths are geometric with the mean asked for, scaled so that speech covers ``speech_share`` of the words:
    spans of text have mean ``mean_words * (1 - share) / max(share, 1 - share)``, spans of units
    ``mean_words * share / max(share, 1 - share)``, both at least 1. Which comes first is drawn by the share.
    Silence goes with the word before it, at the beginning with the first word.

    Args:
        segments: Words with their units. Words without a unit of their own come with others.
        speech_share: Share of the words that is kept as units, from 0 (all text) to 1 (all units).
        mean_words: Mean length of the longer kind of span, in words.
        generator: Where lengths and the beginning are drawn from.
        joiner: What stands between words; the text of a span that others precede begins with it.

    Returns:
        Segments with text and no units, or units and no text. A span whose words have no units stays text.

    Source: the interleaving of SpiRit-LM (arXiv 2402.05755), with alternating spans.
    """
    assert 0.0 <= speech_share <= 1.0, speech_share
    assert mean_words >= 1.0, mean_words
    longest = max(speech_share, 1.0 - speech_share)
    means = {True: max(1.0, mean_words * speech_share / longest)}
    means[False] = max(1.0, mean_words * (1.0 - speech_share) / longest)
    spoken = bool(generator.random() < speech_share)
    spans: list[Segment] = []
    position = 0
    words = _with_silence(segments)
    while position < len(words):
        length = int(generator.geometric(1.0 / means[spoken])) if 0.0 < speech_share < 1.0 else len(words)
        span = words[position : position + length]
        position += length
        units = tuple(unit for segment in span for unit in segment.units)
        text = joiner.join(segment.text for segment in span if segment.text)
        # words are never lost: what has no sound stays text, what has no text stays sound
        as_units = bool(units) and (spoken or not text)
        spans.append(Segment("", units) if as_units else Segment(text, ()))
        spoken = not spoken
    return _merge([span for span in spans if span.units or span.text], joiner)


def _with_silence(segments: Sequence[Segment]) -> list[Segment]:
    """Give the units of silence to the word before, at the beginning to the first word."""
    words: list[Segment] = []
    for segment in segments:
        if words and not (segment.text and words[-1].text):
            last = words.pop()
            words.append(Segment(last.text or segment.text, last.units + segment.units))
        else:
            words.append(segment)
    return words


def _merge(spans: Sequence[Segment], joiner: str) -> list[Segment]:
    """Join neighbours of one kind, and put the joiner where text follows anything."""
    merged: list[Segment] = []
    for span in spans:
        if merged and bool(merged[-1].text) == bool(span.text):
            last = merged.pop()
            merged.append(Segment(last.text + joiner + span.text if span.text else "", last.units + span.units))
        else:
            merged.append(Segment(joiner + span.text if span.text and merged else span.text, span.units))
    return merged
