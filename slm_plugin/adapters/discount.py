"""A discounted copy of an adapter: a folder of links in which only what the factor changes is written anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slm_plugin import card
from slm_plugin.adapters.check import require_fits, tied_heads
from slm_plugin.adapters.lora import CONFIG_FILE, WEIGHTS_FILE, LoraAdapter
from slm_plugin.adapters.scale import discounted_magnitude, interpolated, interpolated_rows
from slm_plugin.weights.checkpoint import WeightSource
from slm_plugin.weights.permissions import share


def write_discounted(
    adapter: LoraAdapter,
    target: Path,
    factor: float,
    base: Callable[[], WeightSource],
    interpolate: bool = False,
    keep_alpha: bool = False,
    units: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapter that adds ``factor`` times what ``adapter`` adds.

    ``lora_alpha`` and ``alpha_pattern`` are multiplied and the weights are links, unless DoRA's magnitudes,
    weights trained in full or ``keep_alpha`` need other weights.

    Args:
        adapter: The adapter as trained.
        target: Folder to write; made when absent.
        factor: Discount, 0 or more; 1 is neutral.
        base: Gives the weights that the adapter was trained on; called only where they are needed.
        interpolate: Whether weights and rows trained in full move toward the base by the factor.
        keep_alpha: Multiply the ``up`` matrices instead of alpha, so that training goes on at the
            step size that alpha stands for.
        units: ``first_id`` and ``count`` of the units, for adapters whose card has none.

    Raises:
        WeightsError: Weights are missing or not finite, or the base is of another architecture.
    """
    target.mkdir(parents=True, exist_ok=True)
    changes_full = interpolate and bool(adapter.replaced() or adapter.row_names())
    rewrites = adapter.is_decomposed or keep_alpha or changes_full
    own = {CONFIG_FILE, WEIGHTS_FILE} if rewrites else {CONFIG_FILE}
    for path in adapter.folder.iterdir():
        if path.is_file() and path.name not in own:
            _link(path, target / path.name)
    config = adapter.config if keep_alpha else _with_alpha(adapter.config, factor)
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2), encoding="utf-8")
    if rewrites:
        needs_base = adapter.is_decomposed or changes_full
        units = card.read(adapter.folder).get("units") or units
        tensors = dict(_tensors(adapter, base() if needs_base else None, factor, interpolate, keep_alpha, units))
        save_file(tensors, target / WEIGHTS_FILE, metadata={"format": "pt"})
        share(target / WEIGHTS_FILE)


def _with_alpha(config: dict[str, Any], factor: float) -> dict[str, Any]:
    patterns = {name: alpha * factor for name, alpha in (config.get("alpha_pattern") or {}).items()}
    return {**config, "lora_alpha": config.get("lora_alpha", 8) * factor, "alpha_pattern": patterns}


def _tensors(
    adapter: LoraAdapter,
    base: WeightSource | None,
    factor: float,
    interpolate: bool,
    keep_alpha: bool,
    units: Mapping[str, Any] | None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of the file with the factor applied, in its own type."""
    twins: dict[str, str] = {}
    if base is not None:
        adapter = adapter.aligned(base.names())
        require_fits(adapter, base)
        twins = tied_heads(adapter, base)
    for key, (kind, name) in adapter.kinds().items():
        tensor = adapter.read(key)
        changed = tensor
        if kind == "up" and keep_alpha:
            changed = tensor.float() * factor
        elif kind == "magnitude" and base is not None:
            decomposed = adapter.decomposed(name)
            assert decomposed is not None
            changed = discounted_magnitude(base.tensor(name), decomposed, factor).view_as(tensor)
        elif kind == "replaced" and interpolate and base is not None:
            changed = interpolated(base.tensor(twins.get(name, name)), tensor, factor, units)
        elif kind == "rows" and interpolate and base is not None:
            rows = adapter.rows(name)
            assert rows is not None
            changed = interpolated_rows(base.tensor(name), *rows, factor, units)
        yield key, changed.to(tensor.dtype).contiguous()


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:
        # file systems and accounts without links
        shutil.copyfile(source, target)
