"""Forced alignment against an independent search, with a small recogniser of the real architecture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.recogniser import VOCABULARY, make_recogniser
from slm_plugin.alignment.ctc import CtcAligner, viterbi
from slm_plugin.alignment.letters import Letters
from slm_plugin.errors import AlignmentError


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recogniser(tmp_path_factory.mktemp("recogniser"))


def best_score(log_probabilities_TV: np.ndarray, targets: list[int], blank: int) -> float:
    """The score of the most probable path by its definition: try every way to lay the targets over the frames."""
    n_frames = len(log_probabilities_TV)
    best = -math.inf
    for path in itertools.product({blank, *targets}, repeat=n_frames):
        folded = [token for token, _ in itertools.groupby(path) if token != blank]
        if folded == targets:
            best = max(best, sum(log_probabilities_TV[frame, token] for frame, token in enumerate(path)))
    return best


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), targets=st.lists(st.integers(1, 2), min_size=1, max_size=3))
def test_the_path_is_the_most_probable_of_all(seed: int, targets: list[int]):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    log_probabilities = torch.log_softmax(2 * logits, -1)
    found = viterbi(log_probabilities, targets, blank=0)
    assert [start for start, _, _ in found] == sorted(start for start, _, _ in found)
    path = [0] * 6
    for target, (start, end, _) in zip(targets, found, strict=True):
        path[start:end] = [target] * (end - start)
    score = sum(float(log_probabilities[frame, token]) for frame, token in enumerate(path))
    assert score == pytest.approx(best_score(log_probabilities.numpy().astype(float), targets, 0), abs=1e-4)


def test_planted_letters_are_found_where_they_were_planted():
    # 20 ms frames: _ A A _ B _ _ B
    plan = [0, 1, 1, 0, 2, 0, 0, 2]
    log_probabilities = torch.log_softmax(10 * torch.nn.functional.one_hot(torch.tensor(plan), 3).float(), -1)
    found = viterbi(log_probabilities, [1, 2, 2], blank=0)
    assert [(start, end) for start, end, _ in found] == [(1, 3), (4, 5), (7, 8)]
    assert min(score for _, _, score in found) > 0.99


def test_a_text_longer_than_the_speech_is_refused():
    log_probabilities = torch.log_softmax(torch.zeros(3, 3), -1)
    # two equal letters need a blank between them: 1 1 2 takes 4 frames
    with pytest.raises(AlignmentError, match="x has 3 frames, its text needs 4: the text is longer than the speech"):
        viterbi(log_probabilities, [1, 1, 2], 0, "x")


def test_words_are_spelt_in_the_case_that_the_recogniser_knows():
    letters = Letters(VOCABULARY, 0, "|")
    assert letters.spell("Don’t") == [VOCABULARY[letter] for letter in "DON'T"]
    assert letters.spell("1984") == []
    assert letters.spell("<pad>") == [VOCABULARY[letter] for letter in "PAD"]
    numbers, owners = letters.path(["a", "7", "b|"])
    assert numbers == [VOCABULARY["A"], VOCABULARY["|"], VOCABULARY["B"]]
    assert owners == [0, None, 2]


def test_a_recording_is_aligned_with_one_span_per_word_in_order(recogniser: Path):
    aligner = CtcAligner(CtcAligner.Options(model=str(recogniser)))
    wave = np.random.default_rng(0).normal(0, 0.1, 22_050 * 2).astype(np.float32)
    found = aligner.align("x", wave, 22_050, ["Red", "42", "dog"], [])
    assert [span.word for span in found.words] == ["Red", "42", "dog"]
    red, number, dog = found.words
    assert math.isnan(number.start_s)
    assert 0.0 <= red.start_s < red.end_s <= dog.start_s < dog.end_s <= 2.0
    assert 0.0 < found.score < 1.0


def test_frames_are_placed_by_what_they_look_at(recogniser: Path):
    aligner = CtcAligner(CtcAligner.Options(model=str(recogniser)))
    # a frame looks at 400 samples, a step is 320: frame 0 stands for 40 to 360, frame 50 begins a second later
    assert aligner.seconds(0) == pytest.approx(40 / 16_000)
    assert aligner.seconds(50) - aligner.seconds(0) == pytest.approx(1.0)


def test_windows_cover_every_frame_once_and_whole_recordings_go_in_one(recogniser: Path):
    wave = np.random.default_rng(1).normal(0, 0.1, 16_000 * 5).astype(np.float32)
    whole = CtcAligner(CtcAligner.Options(model=str(recogniser))).log_probabilities(wave)
    # 249 = (80000 - 400) // 320 + 1
    assert whole.shape == (249, len(VOCABULARY))
    options = CtcAligner.Options(model=str(recogniser), window_seconds=1.5, context_seconds=1.0)
    in_windows = CtcAligner(options).log_probabilities(wave)
    assert in_windows.shape == whole.shape
    # the network is random and attention looks at everything, so the windows are near and not equal
    assert float((in_windows - whole).abs().mean()) < 0.2
    assert bool((in_windows.argmax(-1) == whole.argmax(-1)).float().mean() > 0.8)


def test_the_log_probabilities_are_those_of_transformers(recogniser: Path):
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    wave = np.random.default_rng(2).normal(0.05, 0.2, 16_000).astype(np.float32)
    inputs = Wav2Vec2FeatureExtractor.from_pretrained(recogniser)(wave, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.log_softmax(Wav2Vec2ForCTC.from_pretrained(recogniser).eval()(**inputs).logits[0], -1)
    found = CtcAligner(CtcAligner.Options(model=str(recogniser))).log_probabilities(wave)
    assert float((found - expected).abs().max()) < 1e-4


def test_what_cannot_be_aligned_is_said(recogniser: Path, tmp_path: Path):
    aligner = CtcAligner(CtcAligner.Options(model=str(recogniser), min_score=0.99))
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with pytest.raises(AlignmentError, match=r"mean probability of 0\.\d+, less than min_score 0\.99"):
        aligner.align("x", wave, 16_000, ["red"], [])
    with pytest.raises(AlignmentError, match="no letter of x is known"):
        aligner.align("x", wave, 16_000, ["1984"], [])
    with pytest.raises(AlignmentError, match="300 samples are fewer than the 400 of one frame"):
        aligner.align("x", wave[:300], 16_000, ["red"], [])
    with pytest.raises(AlignmentError, match="cannot be loaded as a CTC recogniser"):
        CtcAligner(CtcAligner.Options(model=str(tmp_path)))


def test_the_terms_of_mms_are_named():
    from slm_plugin.alignment import ctc

    assert "CC BY-NC 4.0" in ctc.MMS_LICENCE
