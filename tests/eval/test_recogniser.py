"""The template recogniser, against an exhaustive search and on real speech."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.errors import DataError, VocabularyError
from slm_plugin.eval import recogniser as module
from slm_plugin.eval.recogniser import TemplateRecogniser, ceiling
from slm_plugin.eval.rows import read_rows
from slm_plugin.speech.mel_kmeans import load_tiny

DISTANCES = 1.0 - np.eye(6)
"""Equal units cost 0, different ones 1."""


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root / "examples" / "tiny" / "data"


def test_templates_laid_end_to_end_are_recognised() -> None:
    recogniser = TemplateRecogniser([("red", [0, 1, 2]), ("dog", [3, 4]), ("two", [5, 0, 5])], DISTANCES)
    found = recogniser.recognise([[3, 4, 0, 1, 2], [5, 0, 5], [], [0, 1, 2, 0, 1, 2]])
    assert found == ["dog red", "two", "", "red red"]


def test_wrong_missing_and_extra_units_are_forgiven() -> None:
    recogniser = TemplateRecogniser([("red", [0, 1, 2, 3]), ("dog", [4, 5, 4, 5])], DISTANCES)
    assert recogniser.recognise([[0, 1, 5, 3], [0, 2, 3], [0, 1, 1, 2, 3], [5, 4, 5]]) == ["red", "red", "red", "dog"]


def test_several_templates_of_a_word_all_count() -> None:
    recogniser = TemplateRecogniser([("red", [0, 1]), ("red", [2, 3]), ("dog", [4, 4])], DISTANCES)
    assert recogniser.recognise([[0, 1, 2, 3, 4, 4]]) == ["red red dog"]


@settings(max_examples=60, deadline=None)
@given(
    templates=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4),
    utterances=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=3),
)
def test_no_other_sequence_of_words_is_cheaper(templates: list[list[int]], utterances: list[list[int]]) -> None:
    recogniser = TemplateRecogniser([(str(n), units) for n, units in enumerate(templates)], DISTANCES)
    for utterance, found in zip(utterances, recogniser.recognise(utterances), strict=True):
        words = [int(word) for word in found.split()]
        assert cost_of(words, templates, utterance) == pytest.approx(cheapest(templates, utterance), abs=1e-4)


def word_cost(template: Sequence[int], units: Sequence[int]) -> float:
    """Cost of one word: its first unit is always matched to the first heard."""

    @cache
    def best(position: int, heard: int) -> float:
        if (position, heard) == (0, 0):
            return float(template[0] != units[0])
        options = []
        if heard > 0:
            options.append(best(position, heard - 1) + module.EXTRA_UNIT)
        if position > 0:
            options.append(best(position - 1, heard) + module.MISSING_UNIT)
        if heard > 0 and position > 0:
            options.append(best(position - 1, heard - 1) + float(template[position] != units[heard]))
        return min(options)

    return module.NEXT_WORD + best(len(template) - 1, len(units) - 1)


def cost_of(words: Sequence[int], templates: Sequence[Sequence[int]], units: Sequence[int]) -> float:
    """Lowest cost of a given sequence of words, over all ways to cut the units."""
    if not words:
        return 0.0 if not units else float("inf")
    ends = range(1, len(units) + 1)
    return min(
        (
            word_cost(templates[words[0]], units[:end]) + cost_of(words[1:], templates, units[end:])
            for end in ends
            if bool(words[1:]) == bool(units[end:])
        ),
        default=float("inf"),
    )


def cheapest(templates: Sequence[Sequence[int]], units: Sequence[int]) -> float:
    """Lowest cost of any sequence of words."""
    best = [0.0]
    for end in range(1, len(units) + 1):
        best.append(min(best[start] + word_cost(t, units[start:end]) for start in range(end) for t in templates))
    return best[-1]


def test_batches_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    recogniser = TemplateRecogniser.load(data / "templates.jsonl", load_tiny())
    utterances = [row["discrete_unit"] for row in read_rows(data / "eval_speech.jsonl", 20)]
    together = recogniser.recognise(utterances)
    monkeypatch.setattr(module, "BATCH", 3)
    assert recogniser.recognise(utterances[::-1]) == together[::-1]


def test_real_speech_is_understood(data: Path) -> None:
    codec = load_tiny()
    recogniser = TemplateRecogniser.load(data / "templates.jsonl", codec)
    rate = ceiling(recogniser, read_rows(data / "eval_speech.jsonl"), codec.n_units)
    assert rate.value <= 0.05
    assert rate.n > 300


def test_speech_is_still_understood_after_it_went_through_the_codec_and_back(data: Path) -> None:
    codec = load_tiny()
    recogniser = TemplateRecogniser.load(data / "templates.jsonl", codec)
    rows = read_rows(data / "eval_speech.jsonl", 60)
    again = [{**row, "discrete_unit": list(codec.encode(codec.decode(row["discrete_unit"])).values)} for row in rows]
    assert ceiling(recogniser, again, codec.n_units).value <= 0.08


def test_templates_without_units_or_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs templates, each with at least one unit"):
        TemplateRecogniser([("red", [])], DISTANCES)
    (tmp_path / "templates.jsonl").write_text('{"word": "red", "units": [3, 100]}\n')
    with pytest.raises(VocabularyError, match="unit 100 at position 1"):
        TemplateRecogniser.load(tmp_path / "templates.jsonl", load_tiny())
