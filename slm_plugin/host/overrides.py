"""The ``slm:`` block on the host's command line: as JSON, and dotted, mitigations by name.

- ``--slm '{"stage": "asr"}'``, ``--slm={...}`` and ``slm={...}``: the host reads the first two only without a YAML.
- ``slm.mitigations.replay.sources.text=0.2``: mitigations are a list, and the host's merging of overrides cannot
  look into lists.

Several processes make the host start ``torchrun`` with its arguments joined and split at blanks, so that JSON
arrives here in pieces.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from slm_plugin.errors import ConfigError, Problem

PREFIX = "slm.mitigations."
_OPTION = "--slm"
_WHERE = "command line: slm"
_LONGEST_SHOWN = 80


def with_named_overrides(read_args: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the host's ``read_args`` so that the block's overrides are read in all their forms."""

    @functools.wraps(read_args)
    def wrapped(args: Any = None) -> Any:
        if args is not None or len(sys.argv) < 2:
            return read_args(args)
        before, has_yaml = sys.argv, Path(sys.argv[1]).suffix in (".yaml", ".yml")
        words, blocks = split_blocks(before[1:])
        named = [word for word in words[1:] if has_yaml and word.startswith(PREFIX)]
        if not named and not blocks:
            return read_args(args)
        kept = [word for word in words if word not in named]
        if not has_yaml:
            # the host's own option, with its value in one piece
            kept += [word for block in blocks for word in (_OPTION, json.dumps(block))]
        sys.argv = [before[0], *kept]
        try:
            config = read_args(args)
        finally:
            sys.argv = before
        if not has_yaml:
            return config
        block = config.get("slm") or {}
        if isinstance(block, str):
            # JSON in the YAML; what is no mapping is refused with the rest of the block
            block = _mapping([block.strip()])
            if block is None:
                return config
        for stated in blocks:
            merged: Any = OmegaConf.to_container(OmegaConf.merge(block, stated))
            block = merged
        config["slm"] = block = dict(block)
        if named:
            wanted = OmegaConf.to_container(OmegaConf.from_cli(named))
            assert isinstance(wanted, dict)
            block["mitigations"] = merge_by_name(block.get("mitigations") or [], wanted["slm"]["mitigations"])
        return config

    return wrapped


def split_blocks(words: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Take whole blocks out of the words of a command line.

    Args:
        words: The words after the program's name.

    Returns:
        The other words, and each block that ``--slm VALUE``, ``--slm=VALUE`` or ``slm={...}`` states.

    Raises:
        ConfigError: The value is not a mapping, even together with the words behind it.
    """
    rest: list[str] = []
    blocks: list[dict[str, Any]] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == _OPTION:
            pieces: list[str] = []
        elif word.startswith((f"{_OPTION}=", "slm={")):
            pieces = [word.partition("=")[2]]
        else:
            rest.append(word)
            continue
        block = _mapping(pieces)
        while block is None and position < len(words):
            pieces.append(words[position])
            position += 1
            block = _mapping(pieces)
        if block is None:
            raise ConfigError([Problem(_WHERE, _unreadable(" ".join(pieces)))])
        blocks.append(block)
    return rest, blocks


def _mapping(pieces: Sequence[str]) -> dict[str, Any] | None:
    """Return the mapping that pieces of JSON, or of YAML in braces, spell together; None if they do not yet."""
    text = " ".join(pieces)
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        try:
            found = OmegaConf.to_container(OmegaConf.create(text))
        except (YAMLError, OmegaConfBaseException):
            return None
    return found if isinstance(found, dict) else None


def _unreadable(text: str) -> str:
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    return (
        f'{shown!r} is not a mapping. Write --slm \'{{"stage": "asr"}}\', in quotes, or one dotted override for each'
        " key: slm.stage=asr."
    )


def merge_by_name(mitigations: list[Any], changes: Mapping[str, Any]) -> list[Any]:
    """Return the list with each change merged into the mitigation of its name, new ones at the end."""
    merged = [{item: {}} if isinstance(item, str) else dict(item) for item in mitigations]
    for name, options in changes.items():
        entry = next((item for item in merged if name in item), None)
        if entry is None:
            merged.append({name: options})
        else:
            entry[name] = OmegaConf.to_container(OmegaConf.merge(entry[name] or {}, options))
    return merged
