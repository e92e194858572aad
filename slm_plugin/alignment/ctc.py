"""Forced alignment with a CTC recogniser.

The letters of the text are the only path that is allowed; of all ways to lay them over the frames (with
blanks, and letters that last) the most probable one is taken. A word lasts from the first frame of its first
letter to the last frame of its last letter.

The path is ``argmax_p prod_t y_t(p_t)`` over the ``p`` of T letters and blanks that become the text when repeats are
joined and then blanks dropped.

Source: Graves et al. 2006, Connectionist temporal classification, section 3 (paths with blanks); the best path by
Viterbi's recursion in place of the sum over all.

Shapes: ``N`` samples, ``T`` frames, ``V`` letters of the recogniser.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from slm_plugin.alignment.letters import Letters
from slm_plugin.alignment.protocol import Alignment
from slm_plugin.errors import AlignmentError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import WordSpan
from slm_plugin.speech.features.grid import FrameGrid, windows
from slm_plugin.speech.resampling import resample
from slm_plugin.strict import Strict

MMS_LICENCE = "weights of the MMS aligner (MMS_FA) are CC BY-NC 4.0: not for commercial use"


class CtcAligner:
    """Aligns with any ``Wav2Vec2ForCTC`` (wav2vec 2.0, XLS-R, MMS) in transformers' form.

    A letter that the recogniser does not know is passed over; a word without a known letter has NaN times.
    """

    class Options(Strict):
        """Options of ``ctc``."""

        model: str
        """Folder, or name on the hub, of a ``Wav2Vec2ForCTC`` with its tokenizer and feature extractor; its terms are
        its own (those of MMS are CC BY-NC 4.0)."""

        device: str = "cpu"
        """Where it runs: ``cpu``, ``cuda``, ``cuda:1`` and so on."""

        window_seconds: float = Field(default=30.0, gt=1)
        """Longer recordings go through the recogniser in windows of this length."""

        context_seconds: float = Field(default=2.0, ge=0)
        """What a window sees of its neighbours."""

        min_score: float = Field(default=0.0, ge=0, le=1)
        """Mean probability of a letter under which a recording is dropped; 0 keeps all."""

    def __init__(self, options: Options) -> None:
        from transformers import AutoConfig, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

        self._options = options
        try:
            architectures = AutoConfig.from_pretrained(options.model).architectures or []
            if "Wav2Vec2ForCTC" not in architectures:
                raise AlignmentError(f"{options.model} is a {', '.join(architectures)}, not a Wav2Vec2ForCTC.")
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(options.model)
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(options.model)
            self._model = Wav2Vec2ForCTC.from_pretrained(options.model, dtype=torch.float32).eval().to(options.device)
        except (OSError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            raise AlignmentError(f"{options.model} cannot be loaded as a CTC recogniser: {text}") from None
        self.sample_rate_hz = int(extractor.sampling_rate)
        self._normalises = bool(extractor.do_normalize)
        self.letters = Letters(
            tokenizer.get_vocab(), int(tokenizer.pad_token_id), getattr(tokenizer, "word_delimiter_token", None)
        )
        config = self._model.config
        self._grid = FrameGrid.of(config.conv_kernel, config.conv_stride)
        self.fingerprint = _fingerprint(options.model)
        self.licence = MMS_LICENCE if "mms" in options.model.lower() else f"weights of {options.model}: see its page"

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Return the most probable spans of the words."""
        targets, owners = self.letters.path(words)
        if not targets:
            raise AlignmentError(f"no letter of {name} is known to {self._options.model}.")
        log_probabilities_TV = self.log_probabilities(resample(wave_N, sample_rate_hz, self.sample_rate_hz))
        path = viterbi(log_probabilities_TV, targets, self.letters.blank, name)
        frames: dict[int, tuple[int, int]] = {}
        for owner, (start, end, _) in zip(owners, path, strict=True):
            if owner is not None:
                frames[owner] = (frames.get(owner, (start, end))[0], end)
        score = float(np.mean([probability for _, _, probability in path]))
        if score < self._options.min_score:
            raise AlignmentError(
                f"the letters of {name} have a mean probability of {score:.2f}, less than min_score"
                f" {self._options.min_score:g}; is it another text or another language?"
            )
        spans = [
            WordSpan(word, *(map(self.seconds, frames[index]) if index in frames else (math.nan, math.nan)))
            for index, word in enumerate(words)
        ]
        return Alignment(tuple(spans), score)

    def seconds(self, frame: int) -> float:
        """Return when a frame begins: half a step before the centre of what it looks at."""
        hop, field = self._grid.hop, self._grid.field
        return (frame * hop + (field - hop) / 2) / self.sample_rate_hz

    @torch.inference_mode()
    def log_probabilities(self, wave_N: np.ndarray) -> torch.Tensor:
        """Return the recogniser's log-probabilities ``(T, V)``, float32, window by window.

        Raises:
            AlignmentError: The recording is shorter than one frame.
        """
        n_frames = self._grid.n_frames(len(wave_N))
        if not n_frames:
            raise AlignmentError(f"{len(wave_N)} samples are fewer than the {self._grid.field} of one frame.")
        samples = torch.from_numpy(np.ascontiguousarray(wave_N, np.float32))
        if self._normalises:
            samples = (samples - samples.mean()) / torch.sqrt(samples.var(unbiased=False) + 1e-7)
        longest, context = (
            int(seconds * self.sample_rate_hz / self._grid.hop)
            for seconds in (self._options.window_seconds, self._options.context_seconds)
        )
        parts = []
        for window in windows(n_frames, longest, context):
            seen = samples[self._grid.samples(window.first, window.end)]
            logits_TV = self._model(seen[None].to(self._options.device)).logits[0].float().cpu()
            kept = slice(window.keep_first - window.first, window.keep_end - window.first)
            parts.append(torch.log_softmax(logits_TV[kept], -1))
        return torch.cat(parts)


def viterbi(
    log_probabilities_TV: torch.Tensor, targets: Sequence[int], blank: int, name: str = "the recording"
) -> list[tuple[int, int, float]]:
    """Return first frame, end frame and mean probability of each target on the most probable path.

    Raises:
        AlignmentError: There are fewer frames than the targets need.
    """
    from torchaudio.functional import forced_align, merge_tokens

    # two equal letters in a row need a blank between them
    needed = len(targets) + sum(a == b for a, b in itertools.pairwise(targets))
    if needed > len(log_probabilities_TV):
        raise AlignmentError(
            f"{name} has {len(log_probabilities_TV)} frames, its text needs {needed}:"
            " the text is longer than the speech."
        )
    tokens_1T, scores_1T = forced_align(
        log_probabilities_TV[None].contiguous(), torch.tensor([list(targets)], dtype=torch.int32), blank=blank
    )
    found = merge_tokens(tokens_1T[0], scores_1T[0].exp(), blank=blank)
    assert len(found) == len(targets), (len(found), len(targets))
    return [(int(span.start), int(span.end), float(span.score)) for span in found]


def _fingerprint(model: str) -> str:
    from slm_plugin import card

    return card.fingerprint(Path(model)) if Path(model).is_dir() else model


@hookimpl
def slm_register_aligners(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``ctc``."""
    register("ctc", CtcAligner)
