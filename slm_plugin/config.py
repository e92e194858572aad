"""The ``slm:`` block of a train, export or chat YAML, as strict frozen models.

The docstring under each key is its documentation; the reference page is generated from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from slm_plugin.errors import ConfigError, Problem, suggest
from slm_plugin.eval.probing import ProbePlan, parse_probes
from slm_plugin.merge.plan import MergePlan, parse_merge
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict, parse
from slm_plugin.vocabulary import DEFAULT_UNIT_COUNT


class UnitsConfig(Strict):
    """Which unit tokens the vocabulary gets."""

    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """Number of unit tokens ``<|0|>``..; 10,000 unless ``count`` or ``codec`` says otherwise."""

    codec: str | None = None
    """Registered codec, or folder that a codec was saved to, whose number of units is taken."""

    seed: int = Field(default=1126, ge=0)
    """Seed of the new embedding rows: the same seed gives the same rows, bit by bit."""

    init: Literal["mean", "covariance"] = "mean"
    """New rows start as the mean of the old ones plus noise: ``mean`` uses the host's, a normal of
    standard deviation 1/sqrt(width); ``covariance`` draws from the old rows' own covariance, shrunk
    1e-9 (estimated on at most 4,096 rows). Old rows are those of tokens before the units; padding is none."""

    @model_validator(mode="after")
    def _one_size(self) -> UnitsConfig:
        if self.count is not None and self.codec is not None:
            raise ValueError("set either count or codec, not both.")
        return self

    @property
    def default_count(self) -> int:
        """The number of units where no codec decides it."""
        return DEFAULT_UNIT_COUNT if self.count is None else self.count


class SlmBlock(Strict):
    """The keys of the ``slm:`` block."""

    stage: str | None = None
    """What this run teaches: llm, asr, tts, sqa or a plugin's stage. Recorded, and its hooks fire."""

    units: UnitsConfig | None = None
    """Unit vocabulary. With nothing else, ``llamafactory-cli export`` writes the units base."""

    train_units: Literal["modules", "rows"] = "modules"
    """``modules`` trains embeddings and head in full; ``rows`` only the new unit rows (LoRA only). If other
    keys, or an adapter that is continued, would train other rows, the run is refused before its first step."""

    mitigations: list[dict[str, Any]] = Field(default_factory=list)
    """What keeps earlier skills alive, each as ``name: {options}``; hooks fire in this order."""

    lora_scale: float | list[float] | dict[str, float] | None = None
    """Discount of the adapters: ``W0 + lora_scale * (alpha / r) * B A``. One factor for all of
    ``adapter_name_or_path``, or one by adapter folder. A list writes one export for each factor.
    Acts at export, in chat, api and eval, and on the adapter that a next stage starts from; 1 is neutral."""

    scaled_modules: Literal["leave", "interpolate"] = "leave"
    """What ``lora_scale`` does to embeddings and head trained in full: ``leave`` them as trained, or
    ``interpolate`` their rows toward the base by the same factor, the unit rows untouched."""

    merge: dict[str, Any] | None = None
    """What ``llamafactory-cli export`` writes instead of one model: several merged. See ``slm.merge``."""

    probes: dict[str, Any] | None = None
    """Skills that are scored while the stage trains, to the host's loggers. See ``slm.probes``."""

    long_samples: Literal["drop", "cut"] = "drop"
    """What happens to rows longer than ``cutoff_len``, training, replayed and evaluation rows alike: ``drop``
    them, or ``cut`` them where a word ends. A prompt is only cut with its answer, in rows that tell which units
    are which word's; other rows that do not fit are dropped. Both are counted."""

    check_template: bool = True
    """Whether a run is refused if ``template`` does not belong to the model, differs from the one of an earlier
    stage, or cannot be written as the chat template of an export. ``false`` goes on with a line in the log."""

    @field_validator("mitigations", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return [{item: {}} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class SlmConfig:
    """A parsed ``slm:`` block together with the objects it names.

    Attributes:
        block: The keys as written.
        instances: The stage (where named) and the mitigations, in order; hooks fire on them.
        unit_count: Units in the vocabulary; 0 where ``units`` is not set.
        merge: The models to merge and how; None where ``merge`` is not set.
        probes: What is scored during training; None where ``probes`` is not set.
    """

    block: SlmBlock
    instances: tuple[object, ...]
    unit_count: int
    merge: MergePlan | None = None
    probes: ProbePlan | None = None


def parse_block(raw: Any, registry: Registry, where: str = "slm") -> SlmConfig:
    """Parse an ``slm:`` block: a mapping, or the same as JSON from the command line.

    Raises:
        ConfigError: Lists every problem of the block, its mitigations and their options.
    """
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except json.JSONDecodeError as error:
            raise ConfigError([Problem(where, f"is not valid JSON ({error}).")]) from None
    problems: list[Problem] = []
    block: SlmBlock | None = None
    try:
        block = parse(SlmBlock, raw, where)
    except ConfigError as error:
        problems.extend(error.problems)
    named = raw if isinstance(raw, Mapping) else {}
    instances: list[object] = []
    stage = named.get("stage")
    if isinstance(stage, str):
        if stage in registry.stages:
            instances.append(registry.stages.get(stage)())
        else:
            text = f"no stage is called {stage!r}. {suggest(stage, registry.stages.names(), 'Registered')}"
            problems.append(Problem(f"{where}.stage", text))
    instances += _mitigations(named.get("mitigations"), registry, f"{where}.mitigations", problems)
    unit_count = 0
    if block is not None and block.units is not None:
        unit_count = _unit_count(block.units, registry, f"{where}.units.codec", problems)
    merge: MergePlan | None = None
    if isinstance(named.get("merge"), Mapping):
        try:
            merge = parse_merge(named["merge"], registry, f"{where}.merge")
        except ConfigError as error:
            problems.extend(error.problems)
    probes: ProbePlan | None = None
    if isinstance(named.get("probes"), Mapping):
        try:
            probes = parse_probes(named["probes"], registry, f"{where}.probes")
            if probes.options.codec is not None:
                found = _codec_size(probes.options.codec, registry, f"{where}.probes.codec", problems)
                if unit_count and found not in (0, unit_count):
                    text = f"has {found} units, the vocabulary {unit_count}: its sound would be another's."
                    problems.append(Problem(f"{where}.probes.codec", text))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems or block is None:
        raise ConfigError(problems)
    return SlmConfig(block, tuple(instances), unit_count, merge, probes)


def _mitigations(raw: Any, registry: Registry, where: str, problems: list[Problem]) -> list[object]:
    found: list[object] = []
    for position, item in enumerate(raw if isinstance(raw, list) else []):
        spot = f"{where}[{position}]"
        entry = {item: {}} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or len(entry) != 1:
            if isinstance(entry, Mapping):
                problems.append(Problem(spot, f"each entry is one name with its options, got {sorted(entry)}."))
            continue
        name, options = next(iter(entry.items()))
        if name not in registry.mitigations:
            names = registry.mitigations.names()
            problems.append(Problem(spot, f"no mitigation is called {name!r}. {suggest(name, names, 'Registered')}"))
            continue
        cls = registry.mitigations.get(name)
        try:
            found.append(cls(parse(cls.Options, {} if options is None else options, f"{spot}.{name}")))
        except ConfigError as error:
            problems.extend(error.problems)
    return found


def _unit_count(units: UnitsConfig, registry: Registry, where: str, problems: list[Problem]) -> int:
    return units.default_count if units.codec is None else _codec_size(units.codec, registry, where, problems)


def _codec_size(name: str, registry: Registry, where: str, problems: list[Problem]) -> int:
    """Return the number of units of a codec; 0, and a problem more, where there is none."""
    from slm_plugin.errors import SlmError
    from slm_plugin.speech.codecs import load_codec

    try:
        return load_codec(name, registry).n_units
    except SlmError as error:
        problems.append(Problem(where, str(error)))
        return 0
