"""The files, folders and data sets that a step reads, as far as its definition and its YAML name them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm_plugin.pipeline import records
from slm_plugin.pipeline.digests import files_in
from slm_plugin.pipeline.plan import OUTPUT_KEYS, Pipeline, Step, host_config

REGISTRY = "dataset_info.json"
SCRIPTS = (".py", ".sh", ".yaml", ".yml", ".toml")
"""Words of a command that end so and are files are inputs of it."""

_NO_INPUTS = frozenset(
    (*OUTPUT_KEYS.values(), "dataset_dir", "logging_dir", "cache_dir", "tokenized_path", "media_dir")
)
"""Keys of a host YAML that name what is written, or what is looked at data set by data set."""

_PATH_KEYS = ("path", "dir", "file", "folder", "model", "adapter", "codec", "deepspeed", "data")


@dataclass
class Sources:
    """What a step reads.

    Attributes:
        files: Files, each known by its content.
        folders: Folders that are known as a whole, such as models.
        data_sets: By name, the entry of ``dataset_info.json`` and the files and folders of its rows.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    data_sets: dict[str, tuple[Any, list[Path]]] = field(default_factory=dict)


def sources_of(step: Step, pipeline: Pipeline, written: Collection[Path]) -> Sources:
    """Return what a step reads.

    Args:
        step: The step.
        pipeline: Its pipeline.
        written: What steps write; nothing in it is an input.
    """
    places = [path.resolve() for path in written]
    found = Sources()
    for name in step.inputs:
        found.files += files_in(Path(name))
    if step.file is not None:
        config = host_config(step) or {}
        found.files.append(Path(step.file))
        _add(found, _paths(config), places)
        _add_data(found, config, places)
    if step.evaluate is not None:
        named = [step.evaluate.model, step.evaluate.adapter]
        _add(found, [Path(name) for name in named if name], places)
        options = [skill.options for skill in pipeline.skills]
        _add(found, [Path(text) for _, text in _texts(options) if text and os.path.exists(text)], places)
    scripts = [Path(word) for word in step.command or [] if word.endswith(SCRIPTS)]
    _add(found, [path for path in scripts if path.is_file()], [*places, Path(pipeline.output).resolve()])
    # a file that is missing is one that an evaluation or a command will report
    found.files = [path for path in dict.fromkeys(found.files) if path.is_file()]
    return found


def _add(found: Sources, paths: Iterable[Path], places: Collection[Path]) -> None:
    for path in paths:
        # the working folder and those above it are nobody's model
        if not _is_below(path, places) and not Path.cwd().is_relative_to(path.resolve()):
            (found.folders if path.is_dir() else found.files).append(path)


def _add_data(found: Sources, config: Mapping[str, Any], places: Collection[Path]) -> None:
    """Add the data sets that a YAML names; the whole folder if it has no registry that names them."""
    folder = config.get("dataset_dir")
    if not isinstance(folder, str) or not Path(folder).is_dir():
        return
    root = Path(folder)
    registry = records.read_json(root / REGISTRY) or {}
    names = {name for _, text in _texts(config) for name in _split(text)} | set(_keys(config.get("slm")))
    for name in sorted(names & registry.keys()):
        entry: Any = registry[name]
        rows = [root / str(entry[key]) for key in ("file_name", "script_url") if _names_rows(entry, key)]
        found.data_sets[name] = (entry, [path for path in rows if path.exists() and not _is_below(path, places)])
    if not names & registry.keys() and not _is_below(root, places):
        found.files += files_in(root)


def _names_rows(entry: Any, key: str) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get(key), str)


def _paths(config: Mapping[str, Any]) -> Iterator[Path]:
    for key, text in _texts(config):
        if key in _NO_INPUTS:
            continue
        for part in _split(text):
            if ("/" in part or key.endswith(_PATH_KEYS)) and os.path.exists(part):
                yield Path(part)


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a value with the key that it is below."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)


def _keys(value: Any) -> Iterator[str]:
    """Yield every key in a value: sources of replay are keys."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_below(path: Path, places: Collection[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(place) for place in places)
