"""The ``slm.merge`` block: which models are merged, by which method, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from slm_plugin.errors import ConfigError, Problem, suggest
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict, parse

DEFAULT_SEED = 1126


@dataclass(frozen=True)
class Member:
    """One model of a merge.

    Attributes:
        model: Folder of a full model or of a LoRA adapter.
        options: What the method takes for each model, such as ``weight`` and ``density``; a ``MemberOptions``
            of the method.
    """

    model: Path
    options: Any


@dataclass(frozen=True)
class MergePlan:
    """A parsed ``slm.merge`` block.

    Attributes:
        method_name: Registered name of the method.
        method: The method, made with its merge-wide options.
        base_model: Model that differences are taken from, and that adapters belong to; None where not named.
        members: The models, in the order written.
        dtype: Type of the result, such as ``bfloat16``; None keeps the first member's.
        seed: Seed of methods that draw.
        engine: Who does the arithmetic: this package, or mergekit.
    """

    method_name: str
    method: Any
    base_model: Path | None
    members: tuple[Member, ...]
    dtype: str | None = None
    seed: int = DEFAULT_SEED
    engine: Literal["own", "mergekit"] = "own"


class MergeBlock(Strict):
    """The keys of ``slm.merge``: several models merged into one by ``llamafactory-cli export``."""

    method: str
    """Registered merge method, such as ``linear``, ``ties``, ``dare_ties`` or ``slerp``."""

    base_model: str | None = None
    """Folder of the model that differences are taken from and that adapters were trained on."""

    models: list[dict[str, Any]] = Field(min_length=1)
    """The members, each ``{model: folder, ...}`` with the method's options for each model. A folder holds a
    full model, or a LoRA adapter, which is folded into its base on the way."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    """Merge-wide options of the method, and values for options of models that name none."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the result; that of the first member unless set."""

    seed: int = Field(default=DEFAULT_SEED, ge=0)
    """Seed of methods that draw."""

    engine: Literal["own", "mergekit"] | None = None
    """Who does the arithmetic: ``own`` streams tensor by tensor, ``mergekit`` calls mergekit; own where we
    have the method unless set."""


def parse_merge(raw: Mapping[str, Any], registry: Registry, where: str) -> MergePlan:
    """Parse a ``slm.merge`` block.

    Raises:
        ConfigError: Lists every problem of the block, its models and their options.
    """
    problems: list[Problem] = []
    block: MergeBlock | None = None
    try:
        block = parse(MergeBlock, raw, where)
    except ConfigError as error:
        problems += error.problems
    name = raw.get("method")
    if isinstance(name, str) and name not in registry.merges:
        text = f"no merge method is called {name!r}. {suggest(name, registry.merges.names(), 'Registered')}"
        problems.append(Problem(f"{where}.method", text))
    elif isinstance(name, str):
        try:
            plan = _parse_method(name, registry.merges.get(name), raw, where)
        except ConfigError as error:
            problems += error.problems
        else:
            if block is not None and not problems:
                return plan(block)
    raise ConfigError(problems)


def _parse_method(name: str, kind: Any, raw: Mapping[str, Any], where: str) -> Any:
    """Check everything that depends on the method; return what makes the plan of a checked block."""
    problems: list[Problem] = []
    engines = getattr(kind, "engines", ("own", "mergekit"))
    engine: Any = raw.get("engine") or engines[0]
    if engine in ("own", "mergekit") and engine not in engines:
        problems.append(Problem(f"{where}.engine", f"{name} runs in {engines[0]} only, got {engine}."))
    require = getattr(kind, "require", None)
    if require is not None:
        require(f"{where}.method")
    shared = raw.get("parameters") or {}
    per_model = set(_keys(kind.MemberOptions))
    defaults: dict[str, Any] = {}
    method: Any = None
    if isinstance(shared, Mapping):
        merge_wide = {key: value for key, value in shared.items() if key not in per_model}
        defaults = {key: value for key, value in shared.items() if key in per_model}
        # an unknown key is compared with all that may stand there
        known = [*_keys(kind.Options), *per_model]
        unknown = [key for key in merge_wide if key not in known]
        for key in unknown:
            del merge_wide[key]
            text = f"unknown key. {suggest(key, known, f'Options of {name}')}"
            problems.append(Problem(f"{where}.parameters.{key}", text))
        try:
            method = kind(parse(kind.Options, merge_wide, f"{where}.parameters"))
        except ConfigError as error:
            problems += error.problems
    base = raw.get("base_model")
    if kind.needs_base and base is None:
        problems.append(Problem(f"{where}.base_model", f"is required: {name} works on differences from a base."))
    counts_base = getattr(kind, "counts_base", not kind.needs_base)
    members = _members(raw.get("models"), kind, defaults, None if counts_base else base, where, problems)
    if method is not None and members and not problems:
        find = getattr(method, "problems", None)
        said = [] if find is None else find([member.options for member in members])
        problems += [Problem(f"{where}.models", text) for text in said]
    if problems:
        raise ConfigError(problems)

    def make(block: MergeBlock) -> MergePlan:
        folder = None if block.base_model is None else Path(block.base_model)
        return MergePlan(name, method, folder, tuple(members), block.dtype, block.seed, engine)

    return make


def _members(
    raw: Any, kind: Any, defaults: Mapping[str, Any], base: Any, where: str, problems: list[Problem]
) -> list[Member]:
    members: list[Member] = []
    seen: set[str] = set()
    for position, entry in enumerate(raw if isinstance(raw, list) else []):
        spot = f"{where}.models[{position}]"
        if not isinstance(entry, Mapping):
            continue
        folder = entry.get("model")
        if not isinstance(folder, str):
            problems.append(Problem(f"{spot}.model", "is required: the folder of a model or of an adapter."))
            continue
        if folder in seen:
            problems.append(Problem(f"{spot}.model", f"{folder} is named twice; give it the sum of the weights."))
        seen.add(folder)
        options = {key: value for key, value in entry.items() if key != "model"}
        if base is not None and Path(folder) == Path(str(base)):
            # the base differs from itself by nothing: it may be listed, but has nothing to set
            if options:
                text = f"is the base_model, whose difference is zero; remove {', '.join(sorted(options))}."
                problems.append(Problem(spot, text))
            continue
        try:
            parsed = parse(kind.MemberOptions, {**defaults, **options}, spot)
        except ConfigError as error:
            problems += error.problems
        else:
            members.append(Member(Path(folder), parsed))
    if not members and not problems and seen:
        problems.append(Problem(f"{where}.models", "holds the base_model alone; name at least one other model."))
    return members


def _keys(model: Any) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
