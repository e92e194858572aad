"""Options of ``slm replay synthesise``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from slm_plugin.strict import Strict


class Limits(Strict):
    """What a row must be like to be kept."""

    min_tokens: int = Field(default=1, ge=1)
    """Shortest answer, in tokens; 1 only drops empty ones."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens; without it whatever ended by itself."""

    max_repeats: int = Field(default=8, ge=1)
    """How often in a row the same one to eight words may come; more is a model that is stuck."""

    max_unit_run: int = Field(default=150, ge=1)
    """How many equal units may come in a row; 150 are three seconds at 50 Hz."""

    max_word_errors: float = Field(default=0.0, ge=0)
    """Word error rate of spoken words against the text they speak (tts, sqa, own speech); 0 wants them equal."""

    min_log_probability: float | None = Field(default=None, le=0)
    """Least mean log-probability of an answer's tokens, in nats; without it none is computed."""

    near_duplicates: float = Field(default=0.85, gt=0, le=1)
    """Jaccard similarity of five-character pieces from which a row counts as there already; 1 keeps all but
    those with the same pieces."""


class SynthesisOptions(Strict):
    """What to write, with which model, and where."""

    model: Path
    """Folder of the model of the previous stage."""

    adapter: Path | None = None
    """Folder of its adapter, merged before it writes."""

    stage: Literal["llm", "asr", "tts", "sqa"]
    """The stage whose rows are written."""

    rows: int = Field(ge=1)
    """Rows wanted."""

    output: Path
    """Folder for the rows and their ``dataset_info.json``; other data sets in it stay."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """Name of the data set, for ``sources`` of ``replay``."""

    prompts: Path | None = None
    """JSON lines to answer; without it the model writes the user turns too (llm only)."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """``auto`` is vLLM where it and a GPU are there."""

    seed: int = Field(default=1126, ge=0)
    """Same seed, same engine, same machine: same bytes."""

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Temperature of the draws; 0 takes the most likely token."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Share of probability that is drawn from; 1 is all of it."""

    max_new_tokens: int = Field(default=1024, ge=1)
    """Where an answer that does not end is given up, in tokens."""

    attempts: int = Field(default=4, ge=1)
    """How many answers are asked for per row wanted before it ends with fewer."""

    limits: Limits = Limits()
    """What a row must be like to be kept."""
