"""Words and units of one utterance, as the pieces of a row."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_plugin.prepare.options import Interleave
from slm_plugin.records import Units, WordSpan
from slm_plugin.speech.interleave import Segment, interleave
from slm_plugin.speech.interleave_forms import by_phrase, by_ratio, random_spans
from slm_plugin.speech.protocol import Codec


def frames_of(units: Units) -> list[int]:
    """Return the unit of every frame: runs that were folded are laid out again."""
    if units.durations is None:
        return list(units.values)
    return np.repeat(units.values, units.durations).tolist()


def lay_out(
    name: str,
    text: str,
    spans: Sequence[WordSpan],
    joiner: str,
    units: Units,
    codec: Codec,
    options: Interleave,
    seed: int,
    tokenizer: Any = None,
) -> list[Segment]:
    """Return segments whose texts are verbatim: joined without anything between they are the text.

    Args:
        name: Name of the item; the draws of ``spans`` depend on it and on the seed alone.
        text: What is said.
        spans: Its words with their times.
        joiner: What stands between words.
        units: What the codec gave.
        codec: Their rate and whether runs are folded.
        options: The form.
        seed: Seed of the draws.
        tokenizer: Counts the pieces of ``ratio``; None for words.
    """
    if options.form == "ratio":
        pieces = token_pieces(text, tokenizer) if tokenizer is not None else _verbatim([s.word for s in spans], joiner)
        return by_ratio(pieces, units.values, options.n_pieces, options.n_units)
    first_centre_s = getattr(codec, "first_centre_s", None)
    segments = interleave(
        spans, frames_of(units), codec.rate_hz, options.silence, codec.folds_runs, first_centre_s, joiner
    )
    if options.form == "spans":
        generator = np.random.default_rng([seed, zlib.crc32(name.encode()), 0x5BA9])
        return random_spans(segments, options.speech_share, options.mean_words, generator, joiner)
    if options.form == "phrases":
        segments = by_phrase(segments, options.max_words, joiner)
    texts = _verbatim([segment.text for segment in segments], joiner)
    return [Segment(piece, segment.units) for piece, segment in zip(texts, segments, strict=True)]


def token_pieces(text: str, tokenizer: Any) -> list[str]:
    """Cut a text where a tokenizer does; tokens that share a character are one piece."""
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    cuts = sorted({end for end in ends if 0 < end < len(text)})
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if end > start]


def _verbatim(texts: Sequence[str], joiner: str) -> list[str]:
    """Put the joiner before every text that another precedes; silence has none."""
    found, begun = [], False
    for text in texts:
        found.append(joiner + text if text and begun else text)
        begun = begun or bool(text)
    return found
