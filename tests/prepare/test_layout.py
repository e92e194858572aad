"""The pieces of a row: verbatim text, all units, in every form and language."""

from __future__ import annotations

import math
from itertools import groupby
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.alignment.words import split_words
from slm_plugin.data.rows import interleaved
from slm_plugin.prepare.layout import lay_out, token_pieces
from slm_plugin.prepare.options import Interleave
from slm_plugin.records import Units, WordSpan
from slm_plugin.vocabulary import strip_units, text_to_units

PLAIN = SimpleNamespace(rate_hz=10.0, folds_runs=False)
FOLDING = SimpleNamespace(rate_hz=10.0, folds_runs=True)


def laid_out(text: str, frames: list[int], codec: SimpleNamespace, options: Interleave, seed: int = 0) -> str:
    """Return the text that a stage makes of the pieces, word times unknown."""
    words = split_words(text)
    runs = [(unit, len(list(run))) for unit, run in groupby(frames)]
    units = (
        Units(tuple(unit for unit, _ in runs), tuple(n for _, n in runs)) if codec.folds_runs else Units(tuple(frames))
    )
    spans = [WordSpan(word, math.nan, math.nan) for word in words.pieces]
    segments = lay_out("x", text, spans, words.joiner, units, codec, options, seed)
    row = {"words": [{"text": segment.text, "units": list(segment.units)} for segment in segments]}
    return interleaved(row, "words", 100)


def test_words_read_as_in_the_published_rows():
    # .4 seconds for 3 + 3 letters: two frames each
    assert laid_out("red dog", [1, 2, 3, 4], PLAIN, Interleave()) == "red<|1|><|2|> dog<|3|><|4|>"


def test_a_language_without_blanks_gets_none():
    assert laid_out("我爱", [1, 2, 3, 4], PLAIN, Interleave()) == "我<|1|><|2|>爱<|3|><|4|>"


def test_silence_of_its_own_stands_before_the_blank():
    options = Interleave(silence="own")
    spans = [WordSpan("red", 0.0, 0.1), WordSpan("dog", 0.2, 0.3)]
    segments = lay_out("x", "red dog", spans, " ", Units((1, 9, 2)), PLAIN, options, 0)
    row = {"words": [{"text": segment.text, "units": list(segment.units)} for segment in segments]}
    assert interleaved(row, "words", 100) == "red<|1|><|9|> dog<|2|>"


def test_blocks_count_words():
    options = Interleave(form="ratio", n_pieces=2, n_units=1)
    assert laid_out("a b c", [1, 2, 3], PLAIN, options) == "a b<|1|> c<|2|><|3|>"


def test_blocks_count_tokens_where_a_tokenizer_is_given():
    class Pairs:
        """A tokenizer of two characters, the second pair cut inside a character."""

        def __call__(self, text: str, **_: bool) -> dict[str, list[tuple[int, int]]]:
            cuts = [(start, min(len(text), start + 2)) for start in range(0, len(text), 2)]
            return {"offset_mapping": [cuts[0], cuts[0], *cuts[1:]]}

    assert token_pieces("abcde", Pairs()) == ["ab", "cd", "e"]


forms = st.builds(
    Interleave,
    form=st.sampled_from(["words", "phrases", "ratio", "spans"]),
    silence=st.sampled_from(["previous", "next", "own"]),
    max_words=st.integers(1, 4),
    n_pieces=st.integers(1, 4),
    n_units=st.integers(1, 8),
    speech_share=st.floats(0, 1),
)


@given(
    text=st.lists(st.sampled_from(["red", "dog.", "我", "爱", "no,", "เด็ก"]), min_size=1, max_size=8).map(" ".join),
    frames=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    codec=st.sampled_from([PLAIN, FOLDING]),
    options=forms,
    seed=st.integers(0, 9),
)
def test_text_and_units_survive_in_every_form(
    text: str, frames: list[int], codec: SimpleNamespace, options: Interleave, seed: int
):
    written = laid_out(text, frames, codec, options, seed)
    units = [unit for unit, _ in groupby(frames)] if codec.folds_runs else frames
    if options.form != "spans":
        # joined, the pieces are the text itself, blanks included
        assert strip_units(written) == text
        assert text_to_units(written) == units
    else:
        assert set(strip_units(written).split()) <= set(text.split()) or split_words(text).joiner == ""
        remaining = iter(units)
        assert all(unit in remaining for unit in text_to_units(written))
    assert written == laid_out(text, frames, codec, options, seed)


def test_spans_differ_by_item_and_by_seed():
    options = Interleave(form="spans", speech_share=0.5, mean_words=2)
    text, frames = " ".join(["red"] * 40), list(range(80))
    assert laid_out(text, frames, PLAIN, options, 0) != laid_out(text, frames, PLAIN, options, 1)


@pytest.mark.parametrize("codec", [PLAIN, FOLDING])
def test_the_first_centre_of_a_codec_shifts_its_grid(codec: SimpleNamespace):
    spans = [WordSpan("red", 0.0, 0.25), WordSpan("dog", 0.25, 0.5)]
    units = Units((1, 2, 3), (1, 1, 1) if codec.folds_runs else None)
    shifted = SimpleNamespace(**vars(codec), first_centre_s=0.2)
    found = lay_out("x", "red dog", spans, " ", units, shifted, Interleave(), 0)
    assert [segment.units for segment in found] == [(1,), (2, 3)]
