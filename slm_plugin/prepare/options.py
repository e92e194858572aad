"""The keys of ``slm prepare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, field_validator, model_validator
from yaml import YAMLError

from slm_plugin.errors import ConfigError, DataError, Problem
from slm_plugin.prepare.filters import Drop
from slm_plugin.speech.interleave import Silence
from slm_plugin.speech.policy import AudioPolicy
from slm_plugin.strict import Strict, parse

Choice = dict[str, dict[str, Any]]
"""One name and its options, ``{librispeech: {path: LibriSpeech/dev-clean}}``."""

ENGINE_KEYS = frozenset({"output", "engine", "workers", "push_to_hub", "push_public"})
"""Keys that decide how the work is done and not what comes out."""


class Interleave(Strict):
    """How words and their units are laid out."""

    form: Literal["words", "phrases", "ratio", "spans"] = "words"
    """``words``: each with its units; ``phrases``: several words, then their units; ``ratio``: blocks of fixed
    sizes; ``spans``: stretches of text alone and of units alone."""

    silence: Silence = "previous"
    """Where units between words go: to the ``previous`` or ``next`` word, on their ``own``, or nowhere (``drop``)."""

    max_words: int = Field(default=8, ge=1)
    """Longest phrase; punctuation ends one earlier."""

    n_pieces: int = Field(default=1, ge=1)
    """Words, or tokens where ``tokenizer`` is set, per block of text in ``ratio``."""

    n_units: int = Field(default=10, ge=1)
    """Units per block in ``ratio``."""

    tokenizer: str | None = None
    """Folder or name of the tokenizer whose tokens ``ratio`` counts; words are counted unless set."""

    speech_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the words that ``spans`` keeps as units; the others are kept as text."""

    mean_words: float = Field(default=10.0, ge=1)
    """Mean length of the longer kind of span in ``spans``, in words."""


class PrepareOptions(Strict):
    """The keys. Paths are relative to the folder ``slm prepare`` is started in."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the data set, and of its folder in ``output``."""

    output: str
    """Folder of data sets and their ``dataset_info.json``; ``dataset_dir`` of a recipe."""

    codec: str
    """Registered codec, or folder, that turns recordings into units."""

    corpus: Choice
    """Form of the corpus and its options, such as ``{librispeech: {path: LibriSpeech/dev-clean}}``."""

    align: Choice | None = None
    """Where word times come from, such as ``{ctc: {model: ...}}``. Unless set: the times that come with the
    recording, else every word's share of the characters (flagged ``even``)."""

    voice: Choice | None = None
    """Synthesiser that speaks text chats, such as ``{espeak: {}}``; recordings have no use for it."""

    interleave: Interleave = Interleave()
    """How words and units are laid out."""

    audio: AudioPolicy = AudioPolicy()
    """What is done with recordings where there is a choice."""

    drop: Drop = Drop()
    """Which rows are left out; none unless set. Each is counted by reason in the card."""

    split: str = Field(default="train", pattern=r"^[A-Za-z0-9_]+$")
    """Name of the split that the rows become."""

    shard_items: int = Field(default=1000, ge=1)
    """Items per file; a run that is killed loses at most the files in flight."""

    batch_seconds: float = Field(default=120.0, gt=0)
    """Seconds of sound that the codec is given at once."""

    seed: int = Field(default=1126, ge=0)
    """Seed of the draws of ``spans``."""

    engine: Literal["auto", "local", "torchrun", "ray"] = "auto"
    """Who does the work: processes of this machine, the processes of ``torchrun``, or Ray Data; ``auto`` takes
    ``torchrun`` where it was started by it, else ``local``. The bytes are the same."""

    workers: int = Field(default=1, ge=1)
    """Processes of ``local``, actors of ``ray``."""

    push_to_hub: str | None = None
    """Owner on the hub; the data set becomes ``<owner>/<name>``. Nothing leaves the machine unless set."""

    push_public: bool = False
    """Whether everybody can see what ``push_to_hub`` makes; private unless set."""

    @field_validator("corpus", "align", "voice", mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if value is None:
            return value
        if isinstance(value, str):
            return {value: {}}
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ValueError("name exactly one, such as {espeak: {}}.")
        return {str(name): dict(options or {}) for name, options in value.items()}

    @model_validator(mode="after")
    def _trimming(self) -> PrepareOptions:
        if self.audio.trim_below_db is not None and self.align is not None and set(self.align) & {"textgrid", "ctm"}:
            raise ValueError(
                "audio.trim_below_db shifts recordings against published alignments; leave one of them out."
            )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return Path(self.output) / self.name


def load(arguments: Sequence[str]) -> PrepareOptions:
    """Read the keys from a YAML file and ``key=value`` arguments, which win; dots lead into mappings.

    Raises:
        DataError: The file cannot be read.
        ConfigError: Lists every problem.
    """
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) > 1:
        raise ConfigError([Problem("slm prepare", f"takes one YAML file, got {', '.join(files)}.")])
    where = Path(files[0]).name if files else "slm prepare"
    try:
        base = OmegaConf.load(files[0]) if files else OmegaConf.create({})
        given = OmegaConf.from_dotlist([argument for argument in arguments if "=" in argument])
        raw: Any = OmegaConf.to_container(OmegaConf.merge(base, given), resolve=True)
    except OSError as error:
        raise DataError(f"{files[0]} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError([Problem(where, f"is not valid YAML: {error}")]) from None
    return parse(PrepareOptions, raw, where)
