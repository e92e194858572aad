"""Dotted command-line overrides of mitigations, by name: ``slm.mitigations.replay.sources.text=0.2``.

Mitigations are a list, and the host's merging of overrides cannot look into lists.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PREFIX = "slm.mitigations."


def with_named_overrides(read_args: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the host's ``read_args`` so that overrides below :data:`PREFIX` find their mitigation."""

    @functools.wraps(read_args)
    def wrapped(args: Any = None) -> Any:
        named = [word for word in sys.argv[2:] if word.startswith(PREFIX)]
        if args is not None or not named or Path(sys.argv[1]).suffix not in (".yaml", ".yml"):
            return read_args(args)
        before = sys.argv
        sys.argv = [word for word in before if word not in named]
        try:
            config = read_args(args)
        finally:
            sys.argv = before
        wanted = OmegaConf.to_container(OmegaConf.from_cli(named))
        assert isinstance(wanted, dict)
        block = config["slm"] = dict(config.get("slm") or {})
        block["mitigations"] = merge_by_name(block.get("mitigations") or [], wanted["slm"]["mitigations"])
        return config

    return wrapped


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
