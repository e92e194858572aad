"""The file of ``slm infer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, model_validator
from yaml import YAMLError

from slm_plugin.errors import ConfigError, DataError, Problem
from slm_plugin.generation.engines import EngineName
from slm_plugin.strict import Strict, parse

AUDIO_COLUMNS = ("audio", "question_audio")
"""What the published sets call the spoken question; ``fixie-ai/trivia_qa-audio`` the latter."""


class SpokenData(Strict):
    """A set of spoken questions."""

    path: str
    """Name on the hub, or a local folder or file: Parquet, JSON lines, or what ``save_to_disk`` wrote."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$")
    """Folder of its answers; the last part of ``path`` unless set."""

    subset: str | None = None
    """Configuration of a set on the hub."""

    split: str | None = None
    """Split to answer; ``test`` where there is one, else ``validation``, ``dev`` or ``train``, unless set."""

    audio: str | None = None
    """Column with the recording; ``audio`` or ``question_audio`` unless set."""

    units: str | None = None
    """Column with units in place of a recording."""

    n: int | None = Field(default=None, ge=1)
    """How many rows; all unless set."""

    @model_validator(mode="after")
    def _one_source(self) -> SpokenData:
        if self.audio is not None and self.units is not None:
            raise ValueError("set either audio or units, not both.")
        return self

    @property
    def folder(self) -> str:
        """Name of the folder of its answers."""
        return self.name or Path(self.path).name


class Draws(Strict):
    """How answers are drawn."""

    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """0 takes the most likely token."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of probability that is drawn from."""

    max_new_tokens: int = Field(default=1024, ge=1)
    """Where an answer without end is cut."""

    seed: int = Field(default=1126, ge=0)
    """Seed of the draws."""


class InferOptions(Strict):
    """The keys of the file. Paths are relative to the folder ``slm infer`` is started in."""

    model: str
    """Folder of the model."""

    adapter: str | None = None
    """Folder of an adapter on it, merged before it answers."""

    lora_scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor that the adapter's updates count by, as in the ``slm:`` block; 1 is as trained."""

    scaled_modules: Literal["leave", "interpolate"] = "leave"
    """What ``lora_scale`` does to weights trained in full: nothing, or move them toward the base by the factor."""

    codec: str
    """Registered codec, or folder, that turns recordings into units and units into sound."""

    data: list[SpokenData] = Field(min_length=1)
    """What to answer."""

    output: str
    """Folder for the answers: ``<output>/<name>/part-00000.parquet`` and so on."""

    batch: int = Field(default=64, ge=1)
    """Questions per file of answers; a run that was stopped loses at most those of one file."""

    engine: EngineName = "auto"
    """``vllm``, ``transformers``, or ``auto``: vLLM where it and a GPU are there."""

    sampling: Draws = Draws()
    """How answers are drawn."""

    vocoder: bool = True
    """Whether the units of an answer are also written as sound."""

    push_to_hub: str | None = None
    """Owner on the hub; each set of answers becomes ``<owner>/<name>``. Nothing leaves the machine unless set."""

    push_public: bool = False
    """Whether everybody can see what ``push_to_hub`` makes; private unless set."""

    @model_validator(mode="after")
    def _consistent(self) -> InferOptions:
        names = [data.folder for data in self.data]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sets of data are called {', '.join(twice)}; give one of them a name.")
        if self.adapter is None and self.lora_scale != 1:
            raise ValueError(f"lora_scale {self.lora_scale} has nothing to act on; set adapter.")
        return self


def load(path: Path) -> InferOptions:
    """Read and check the file.

    Raises:
        DataError: It cannot be read or is not YAML.
        ConfigError: Lists every problem in it.
    """
    try:
        raw: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError([Problem(path.name, f"is not valid YAML: {error}")]) from None
    return parse(InferOptions, raw, path.name)
