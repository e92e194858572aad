"""All an outside plugin can offer, in one file: mitigations, a stage, a probe, a codec, parts of ``slm prepare``.

Each part stands for itself; copy the one you need. What fires when is in ``slm_plugin.hookspecs``.
Shapes: ``wave_N`` is ``(n_samples,)``; logits are ``(batch B, tokens T, vocabulary V)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from slm_plugin import hookimpl
from slm_plugin.alignment.protocol import Alignment
from slm_plugin.errors import CodecError
from slm_plugin.eval.protocol import Generator
from slm_plugin.prepare.corpora.protocol import ChatItem
from slm_plugin.records import PoolDraw, Sample, Score, StageRun, Units, Utterance, WordSpan
from slm_plugin.strict import Strict
from slm_plugin.vocabulary import check_range

SPELL = "<|spell|>"
"""Task token of the stage ``spell``."""


class Rehearse:
    """Mitigation ``rehearse``: the shortest there is, rows of one earlier data set.

    Args:
        options: Which data set, and how much of it.
    """

    class Options(Strict):
        """Options of ``rehearse``."""

        dataset: str
        """Name in ``dataset_info.json``."""

        ratio: float = Field(default=0.05, ge=0)
        """Rows per row of the current stage; 0 draws none."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @hookimpl
    def slm_mix_samples(self) -> list[PoolDraw]:
        """Ask for the rows."""
        return [PoolDraw(self.options.dataset, self.options.ratio)]


class PullToStart:
    """Mitigation ``pull_to_start``: weight decay towards the weights the stage began with.

    Adds the gradient of ``strength / 2 * sum (p - p_start)^2`` over the trained parameters, slows the
    embeddings down by ``embedding_rate``, and writes how far the weights went to ``drift.json``.
    For one process or data-parallel ones, which hold whole parameters.

    Args:
        options: Strength of the pull and learning-rate factor of the embeddings.
    """

    class Options(Strict):
        """Options of ``pull_to_start``."""

        strength: float = Field(default=1e-3, ge=0)
        """Weight of the penalty; 0 leaves the gradient as it is."""

        embedding_rate: float = Field(default=1.0, gt=0)
        """Learning rate of embeddings and head, as a factor on the others'; 1 changes nothing."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._start: dict[torch.nn.Parameter, torch.Tensor] = {}

    @hookimpl
    def slm_check(self, arguments: Mapping[str, Any]) -> list[str]:
        """Refuse an optimizer that steps before the pull can be added."""
        return ["pull_to_start does not work with use_badam: true."] if arguments.get("use_badam") else []

    @hookimpl
    def slm_stage_start(self, model: torch.nn.Module) -> None:
        """Remember where the trained parameters are now."""
        self._start = {p: p.detach().clone() for p in model.parameters() if p.requires_grad}

    @hookimpl
    def slm_parameter_groups(self, model: torch.nn.Module) -> Mapping[str, float]:
        """Slow embeddings and head down."""
        trained = (name for name, p in model.named_parameters() if p.requires_grad)
        return {name: self.options.embedding_rate for name in trained if "embed" in name or "lm_head" in name}

    @hookimpl
    def slm_extra_gradient(self, parameters: Sequence[torch.nn.Parameter]) -> float:
        """Add ``strength * (p - p_start)`` to every gradient.

        Returns:
            The penalty, ``strength / 2 * sum (p - p_start)^2``.
        """
        total = 0.0
        for parameter in parameters:
            if parameter in self._start and parameter.grad is not None:
                difference = parameter.detach() - self._start[parameter]
                parameter.grad.add_(difference, alpha=self.options.strength)
                total += float(difference.square().sum())
        return self.options.strength / 2 * total

    @hookimpl
    def slm_stage_end(self, run: StageRun) -> None:
        """Write the root mean square distance from the start."""
        if run.process_index == 0 and self._start:
            squares = sum(float((p.detach() - start).square().sum()) for p, start in self._start.items())
            n_weights = sum(p.numel() for p in self._start)
            content = {"rms": (squares / n_weights) ** 0.5, "n_weights": n_weights}
            (run.output_dir / "drift.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


class ConfidencePenalty:
    """Mitigation ``confidence_penalty``: keeps answers from growing over-confident.

    Adds ``-strength * mean H(p(. | x_<t))`` over the tokens of the answer, in nats.

    Source: arXiv 1701.06548, eq. 2.

    Args:
        options: Strength of the penalty.
    """

    class Options(Strict):
        """Options of ``confidence_penalty``."""

        strength: float = Field(default=0.1, ge=0)
        """Weight of the entropy; 0 leaves the loss as it is."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @hookimpl
    def slm_extra_loss(self, inputs: Mapping[str, Any], outputs: Any) -> torch.Tensor:
        """Return the weighted negative entropy of one micro-batch."""
        # the logits at t predict the label at t + 1
        answered_BT = inputs["labels"][:, 1:] != -100
        log_p_NV = outputs.logits[:, :-1][answered_BT].float().log_softmax(-1)
        entropy_N = -(log_p_NV.exp() * log_p_NV).sum(-1)
        return -self.options.strength * entropy_N.sum() / max(1, entropy_N.numel())


class SpellStage:
    """Stage ``spell``: a word in, its letters out; brings its own task token."""

    columns = ("word",)

    def sample(self, row: Mapping[str, Any], unit_count: int) -> Sample | None:
        """Return ``<|spell|>cat`` -> ``c a t``; None for an empty word."""
        word = str(row["word"]).strip()
        return Sample(SPELL + word, " ".join(word)) if word else None

    @hookimpl
    def slm_extend_tokenizer(self) -> list[str]:
        """Add the task token behind the units."""
        return [SPELL]

    @hookimpl
    def slm_export(self, export_dir: Path) -> None:
        """Leave a note for whoever serves the model."""
        (export_dir / "task_tokens.json").write_text(json.dumps({"spell": SPELL}) + "\n", encoding="utf-8")


class SpellProbe:
    """Probe ``spell``: share of words that are spelt right."""

    class Options(Strict):
        """Options of ``spell``."""

        words: list[str] = Field(min_length=1)
        """Words to spell, best ones that training never showed."""

    better = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the mean over the words, with the binomial standard error."""
        words = self.options.words
        answers = generator.answer([SPELL + word for word in words], 2 * max(map(len, words)))
        right = sum(answer.strip() == " ".join(word) for word, answer in zip(words, answers, strict=True))
        share = right / len(words)
        return Score(skill, share, len(words), "higher", (share * (1 - share) / len(words)) ** 0.5)


class MuLawCodec:
    """Codec ``mu_law``: one unit per sample, 8 bits; far too long for training, handy for trying a path.

    ``unit = round((sign(x) ln(1 + 255 |x|) / ln 256 + 1) / 2 * 255)``.

    Source: ITU-T G.711, mu-law companding with mu = 255 (the continuous formula).
    """

    n_units = 256
    rate_hz = 8000.0
    sample_rate_hz = 8000
    folds_runs = False
    fingerprint = "6d756c617731"

    def encode(self, wave_N: np.ndarray) -> Units:
        """Return one unit per sample."""
        companded_N = np.sign(wave_N) * np.log1p(255 * np.abs(wave_N)) / np.log(256)
        return Units(tuple(int(unit) for unit in np.rint((companded_N + 1) / 2 * 255)))

    def decode(self, units: Sequence[int]) -> np.ndarray:
        """Return one float32 sample per unit."""
        check_range(units, self.n_units)
        companded_N = np.asarray(units, dtype=np.float64) / 255 * 2 - 1
        return (np.sign(companded_N) * np.expm1(np.abs(companded_N) * np.log(256)) / 255).astype(np.float32)

    def stream(self) -> MuLawStream:
        """Return a streaming synthesiser."""
        return MuLawStream(self)

    def save(self, folder: Path) -> None:
        """Refuse: there is nothing to fit, so the name is all anyone needs.

        Raises:
            CodecError: Always.
        """
        raise CodecError("mu_law has no parameters to save; name it as units.codec: mu_law.")


class MuLawStream:
    """Streaming twin of :meth:`MuLawCodec.decode`: every sample is final as soon as its unit is there."""

    def __init__(self, codec: MuLawCodec) -> None:
        self._codec = codec

    def push(self, units: Sequence[int]) -> np.ndarray:
        """Return the samples of the new units."""
        return self._codec.decode(units)

    def finish(self) -> np.ndarray:
        """Return what is left: nothing."""
        return np.zeros(0, dtype=np.float32)


class SpellingBee:
    """Corpus ``spelling_bee``: words to be asked for, letter by letter as the answer.

    Args:
        options: Which words.
    """

    class Options(Strict):
        """Options of ``spelling_bee``."""

        words: list[str] = Field(min_length=1)
        """The words."""

    kind: Literal["speech", "chats"] = "chats"
    licence = "public domain"

    def __init__(self, options: Options) -> None:
        self.words = options.words
        self.fingerprint = " ".join(options.words)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> ChatItem:
        return ChatItem(f"bee-{index}", f"Spell {self.words[index]}", " ".join(self.words[index]), "en")


class Beeps:
    """Voice ``beeps``: a tone per character; how long a word lasts is known, so it needs no aligner.

    Args:
        options: It has none.
    """

    class Options(Strict):
        """Options of ``beeps``."""

    licence = "public domain"
    questions, answers = ("low",), "high"

    def __init__(self, options: Options) -> None:
        self.fingerprint = "beeps 1"

    @contextmanager
    def session(self) -> Iterator[Beeps]:
        """Return itself: nothing is carried from text to text."""
        yield self

    def say(self, text: str, voice: str) -> Utterance:
        """Return 0.1 seconds of a tone for each character of each word."""
        ends = np.cumsum([0.1 * len(word) for word in text.split()])
        starts = [0.0, *ends[:-1]]
        spans = tuple(WordSpan(*span) for span in zip(text.split(), starts, ends, strict=True))
        time_N = np.arange(round(16_000 * ends[-1])) / 16_000
        wave_N = 0.5 * np.sin(2 * np.pi * (220.0 if voice == "low" else 440.0) * time_N)
        return Utterance(wave_N.astype(np.float32), 16_000, text, spans)


class Steady:
    """Aligner ``steady``: every word lasts equally long.

    Args:
        options: It has none.
    """

    class Options(Strict):
        """Options of ``steady``."""

    fingerprint, licence = "steady 1", ""

    def __init__(self, options: Options) -> None:
        pass

    def align(
        self, name: str, wave_N: np.ndarray, sample_rate_hz: int, words: Sequence[str], known: Sequence[WordSpan]
    ) -> Alignment:
        """Cut the recording into as many parts as there are words."""
        step = len(wave_N) / sample_rate_hz / max(1, len(words))
        return Alignment(tuple(WordSpan(word, step * n, step * (n + 1)) for n, word in enumerate(words)))


@hookimpl
def slm_register_corpora(register: Callable[[str, type], None]) -> None:
    """Offer the corpus."""
    register("spelling_bee", SpellingBee)


@hookimpl
def slm_register_voices(register: Callable[[str, type], None]) -> None:
    """Offer the voice."""
    register("beeps", Beeps)


@hookimpl
def slm_register_aligners(register: Callable[[str, type], None]) -> None:
    """Offer the aligner."""
    register("steady", Steady)


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer the three mitigations."""
    register("rehearse", Rehearse)
    register("pull_to_start", PullToStart)
    register("confidence_penalty", ConfidencePenalty)


@hookimpl
def slm_register_stages(register: Callable[[str, type], None]) -> None:
    """Offer ``spell``."""
    register("spell", SpellStage)


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``spell``."""
    register("spell", SpellProbe)


@hookimpl
def slm_register_codecs(register: Callable[[str, type], None]) -> None:
    """Offer ``mu_law``."""
    register("mu_law", MuLawCodec)
