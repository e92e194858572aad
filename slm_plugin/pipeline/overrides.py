"""``key=value`` arguments of ``slm run``: they change keys of the pipeline, and of the YAML that a step names.

``steps.asr.processes=2`` changes the step ``asr``, and ``steps.asr.train.max_steps=9`` the YAML that it trains with.
An item of a list is named by its position or by its name. ``seed`` and ``output`` reach every step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from slm_plugin.errors import Problem, suggest

PLACE = "command line"
HOST_FILES = ("train", "export")
SEEDS = ("seed", "data_seed")
_ITEM_NAMES = ("name", "skill", "stage")
_NO_PATHS = frozenset(
    (
        "name",
        "needs",
        "stage",
        "label",
        "variants",
        "skill",
        "probe",
        "dataset",
        "eval_dataset",
        "run_name",
        "template",
    )
)
"""Keys whose values are never paths, even if they are spelled like one."""


@dataclass(frozen=True)
class Override:
    """One ``key=value``.

    Attributes:
        key: The dotted key.
        text: The value as it was written.
        value: The value, read as YAML.
    """

    key: str
    text: str
    value: Any


def read_overrides(arguments: Sequence[str], problems: list[Problem]) -> list[Override]:
    """Parse ``key=value`` arguments in the grammar of OmegaConf; what cannot be read is added to ``problems``."""
    found = []
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator or not all(part.strip() for part in key.split(".")):
            problems.append(Problem(PLACE, f"{argument!r} is not key=value, such as jobs=2 or steps.asr.processes=2."))
            continue
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=True)
        except (YAMLError, OmegaConfBaseException) as error:
            problems.append(Problem(f"{PLACE}: {key}", f"{text!r} is not a YAML value ({_one_line(error)})."))
            continue
        assert isinstance(value, dict)
        found.append(Override(key, text, value["value"]))
    return found


@dataclass(frozen=True)
class Applied:
    """What became of overrides.

    Attributes:
        host: By the name of a step, what changes in the YAML that it trains or exports with: values by dotted key.
        places: Keys of overrides by the place in the pipeline that they changed, such as ``.steps[3].processes``.
    """

    host: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, str]


def apply(
    raw: dict[str, Any], overrides: Sequence[Override], fields: Collection[str], problems: list[Problem]
) -> Applied:
    """Change a pipeline in place.

    Args:
        raw: The content of a pipeline file.
        overrides: What to change; the last of several wins.
        fields: Keys that a pipeline has.
        problems: Receives keys that lead nowhere.
    """
    host: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    for override in overrides:
        where, parts = f"{PLACE}: {override.key}", override.key.split(".")
        if parts[0] not in fields:
            hint = " Keys of a train or export YAML are written steps.STEP.train.KEY."
            problems.append(Problem(where, f"unknown key. {suggest(parts[0], fields, 'Keys')}{hint}"))
            continue
        try:
            step, rest = _host_key(raw, parts)
            if step is not None:
                host.setdefault(step, {})[".".join(rest)] = override.value
            else:
                places[assign(raw, parts, override.value, override.text)] = override.key
        except LookupError as error:
            problems.append(Problem(where, str(error.args[0])))
    return Applied(host, places)


def assign(content: Any, parts: Sequence[str], value: Any, text: str | None = None) -> str:
    """Set a value below a path of keys, positions and names; mappings on the way are made if they are missing.

    Args:
        content: A mapping or list, changed in place.
        parts: The path.
        value: What to set.
        text: The value as it was written, taken if a text is replaced by something that only looks like a number.

    Returns:
        The place in the way of :func:`slm_plugin.strict.parse`, such as ``.steps[3].processes``.

    Raises:
        LookupError: A part of the path names no item of a list, or leads into a value.
    """
    place = ""
    for holder, key, last in _walk(content, parts):
        place += f"[{key}]" if isinstance(holder, list) else f".{key}"
        if last:
            old = holder[key] if isinstance(holder, list) else holder.get(key)
            is_text = isinstance(old, str) or "environment" in parts[:-1]
            holder[key] = text if is_text and text is not None and isinstance(value, int | float) else value
            break
        if isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        if not isinstance(holder[key], dict | list):
            raise LookupError(f"{place.lstrip('.')} is {holder[key]!r} and has no keys below it.")
    return place


def _walk(content: Any, parts: Sequence[str]) -> Iterator[tuple[Any, Any, bool]]:
    """Yield the container and the key of each part of a path; the names of items may contain dots."""
    here, rest = content, list(parts)
    while rest:
        if isinstance(here, list):
            position, n_parts, inner = _position(here, rest)
            name, rest = rest[0], rest[n_parts:]
            yield here, position, not rest and not inner
            here = here[position]
            if inner:
                yield here, name, not rest
                here = here[name] if rest else None
        else:
            key = rest.pop(0)
            yield here, key, not rest
            here = here[key] if rest else None


def _position(items: list[Any], parts: Sequence[str]) -> tuple[int, int, bool]:
    """Return an item's position, how many parts name it, and whether its options are below its own name."""
    if re.fullmatch(r"\d+", parts[0]):
        if int(parts[0]) >= len(items):
            raise LookupError(f"there is no item {parts[0]}; the list has {len(items)}, counted from 0.")
        return int(parts[0]), 1, False
    for n_parts in range(len(parts), 0, -1):
        name = ".".join(parts[:n_parts])
        found = [position for position, item in enumerate(items) if name in _names(item)]
        if len(found) > 1:
            raise LookupError(f"{len(found)} items are called {name!r}; give the position, counted from 0.")
        if found:
            item = items[found[0]]
            if isinstance(item, str):
                items[found[0]] = {item: {}}
            options = isinstance(item, str) or (n_parts == 1 and list(item) == [name])
            return found[0], n_parts, options
    if items and all(isinstance(item, str) or (isinstance(item, Mapping) and len(item) == 1) for item in items):
        # a list of options by name, such as mitigations, takes a further one
        items.append({parts[0]: {}})
        return len(items) - 1, 1, True
    known = [name for item in items for name in _names(item)]
    raise LookupError(f"no item is called {parts[0]!r}. {suggest(parts[0], known, 'Items')}")


def _names(item: Any) -> list[str]:
    """Return what an item of a list may be called: by a key that names it, or by its only key."""
    if isinstance(item, str):
        return [item]
    if not isinstance(item, Mapping):
        return []
    named = [str(item[key]) for key in _ITEM_NAMES if item.get(key) is not None][:1]
    return named or ([str(next(iter(item)))] if len(item) == 1 else [])


def _host_key(raw: Mapping[str, Any], parts: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the step whose YAML a key leads into, and the rest of the key; no step for a key of the pipeline."""
    steps = raw.get("steps")
    if parts[0] != "steps" or len(parts) < 3 or not isinstance(steps, list):
        return None, []
    position, n_parts, _ = _position(steps, parts[1:])
    rest, step = list(parts[1 + n_parts :]), steps[position]
    if len(rest) >= 2 and rest[0] in HOST_FILES and isinstance(step, Mapping) and isinstance(step.get(rest[0]), str):
        return str(step.get("name")), rest[1:]
    return None, []


class Moved:
    """Rewrites paths for another output folder.

    What the pipeline wrote below its output folder is written below the new one. Outputs of steps outside of it are
    moved too, with their place relative to the common parent of all of them.

    Args:
        old: Output folder of the pipeline file.
        new: The folder to write to instead.
        outputs: Everything else that steps write.
    """

    def __init__(self, old: str, new: str, outputs: Sequence[str]) -> None:
        old, places = os.path.normpath(old), {os.path.normpath(path) for path in outputs}
        # in a pipeline that writes to the working folder itself, other paths are as likely to be inputs
        outside = {path for path in places if old == os.curdir or not _below(path, old)}
        root = os.path.commonpath([os.path.abspath(path) for path in (old, *outside)])
        self._moves = {} if old == os.curdir else {old: new}
        for path in outside:
            self._moves[path] = os.path.normpath(Path(new) / os.path.relpath(os.path.abspath(path), root))
        longest = "|".join(re.escape(path) for path in sorted(self._moves, key=len, reverse=True))
        # a path begins a text, or follows what separates a list or an option from its value
        self._pattern = re.compile(rf"(?:^|(?<=[=,]))(?:\./)?({longest})(?=$|[/,])") if longest else None

    def path(self, text: str) -> str:
        """Return a text with every path in it rewritten."""
        return text if self._pattern is None else self._pattern.sub(lambda found: self._moves[found[1]], text)

    def content(self, value: Any, key: str = "") -> Any:
        """Return a value of a YAML file with every path in it rewritten."""
        if isinstance(value, str):
            return value if key in _NO_PATHS else self.path(value)
        if isinstance(value, Mapping):
            return {name: self.content(item, str(name)) for name, item in value.items()}
        return [self.content(item, key) for item in value] if isinstance(value, list) else value


def seeded(config: Mapping[str, Any], kind: str, seed: int) -> dict[str, Any]:
    """Return a train or export YAML with another seed.

    Every ``seed`` and ``data_seed`` in it is set, and the seeds that a training, a unit vocabulary and a merge have
    without being written.
    """
    found: dict[str, Any] = _set_seeds(config, seed)
    if kind == "train":
        found["seed"] = seed
    block = found.get("slm")
    parts = [block.get("units"), block.get("merge")] if isinstance(block, dict) else []
    for part in parts:
        if isinstance(part, dict):
            part["seed"] = seed
    return found


def seeded_command(words: Sequence[str], seed: int) -> list[str]:
    """Return a command line whose option ``--seed`` has another value."""
    found = [re.sub(r"^--seed=.*$", f"--seed={seed}", word) for word in words]
    return [str(seed) if position and found[position - 1] == "--seed" else word for position, word in enumerate(found)]


def _set_seeds(value: Any, seed: int) -> Any:
    if isinstance(value, Mapping):
        return {key: seed if key in SEEDS else _set_seeds(item, seed) for key, item in value.items()}
    return [_set_seeds(item, seed) for item in value] if isinstance(value, list) else value


def _below(path: str, folder: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
