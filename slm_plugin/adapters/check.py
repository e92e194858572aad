"""Whether an adapter belongs to a base: by fingerprint where one is recorded, and by names and shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from slm_plugin import card
from slm_plugin.adapters.lora import WEIGHTS_FILE, LoraAdapter, load_config, unsupported
from slm_plugin.errors import WeightsError, suggest
from slm_plugin.weights.checkpoint import Checkpoint, WeightSource


def require_same_base(adapter_folder: Path, base_folder: Path) -> None:
    """Refuse an adapter that was trained on another base.

    The fingerprint in the adapter's ``slm.json`` decides, not the name of the base; without one, names
    and shapes of the weights do.

    Raises:
        WeightsError: The base is another one; both are named.
    """
    require_same_fingerprint(adapter_folder, base_folder)
    if not _recorded(adapter_folder):
        require_fits(LoraAdapter(adapter_folder), Checkpoint(base_folder))


def require_same_fingerprint(adapter_folder: Path, base_folder: Path) -> None:
    """Refuse an adapter whose card records another base; without a fingerprint on both sides nothing is known.

    Raises:
        WeightsError: The fingerprints differ.
    """
    recorded = _recorded(adapter_folder)
    found = card.fingerprint(base_folder) if recorded else ""
    if recorded and found and not card.is_fingerprint_of(recorded, base_folder):
        name = card.read(adapter_folder)["base"].get("path") or "another model"
        raise WeightsError(
            f"the adapter {adapter_folder} was trained on {name} (fingerprint {recorded}), not on {base_folder}"
            f" (fingerprint {found})."
        )


def require_loadable(folder: Path, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """Refuse an adapter that a loaded model cannot take, which PEFT would skip in silence or load as it is.

    Args:
        folder: The adapter; other kinds than LoRA and other files than safetensors are left to PEFT.
        shapes: Shape of each of the model's weights by name; None where it cannot be known (quantised weights).

    Raises:
        WeightsError: The model lacks weights that the adapter changes, has them in another shape, or a trained
            value is not finite.
    """
    if not (folder / WEIGHTS_FILE).is_file() or unsupported(load_config(folder)):
        return
    adapter = LoraAdapter(folder)
    changed = {name for _, name in adapter.kinds().values()}
    modules = {name.rpartition(".")[0] for name in shapes}
    lacking = sorted(name for name in changed if name.rpartition(".")[0] not in modules)
    if lacking:
        raise WeightsError(_other_architecture(adapter, lacking, set(shapes)))
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    for name in sorted(set(adapter.modules()) & known.keys()):
        _require_update_fits(adapter, name, known[name])
    for name in sorted(set(adapter.replaced()) & known.keys()):
        held, needed = known[name], adapter.replacement_shape(name)
        if held != needed:
            text = f"the adapter {folder} has {name!r} of shape {needed}, the model of {held}"
            hint = ": give the base with units that it was trained on" if held[1:] == needed[1:] else ""
            raise WeightsError(f"{text}{hint}.")
    for key in adapter.kinds():
        adapter.read(key)


def require_same_units(
    folder: Path, units: Mapping[str, int] | None, are_new: bool, matrices: Collection[str]
) -> None:
    """Refuse an adapter that would put other values into the unit rows of a model than those that belong there.

    The height of a matrix does not show it: a padded one has the rows whether or not its tokenizer has the tokens.

    Args:
        folder: The adapter; other kinds than LoRA and other files than safetensors are left to PEFT.
        units: ``first_id`` and ``count`` of the model's units; None without.
        are_new: Whether the model gets its units in this run, so that only adapters with units know their rows.
        matrices: Names of the weights of embeddings and head.

    Raises:
        WeightsError: The adapter's units have other ids, or it replaces whole matrices and has no units.
    """
    if units is None or not (folder / WEIGHTS_FILE).is_file() or unsupported(load_config(folder)):
        return
    recorded = card.units_of(folder)
    if recorded and recorded["first_id"] != units["first_id"]:
        raise WeightsError(
            f"the adapter {folder} has its units at token {recorded['first_id']}, this model at {units['first_id']}:"
            " start from the model that it was trained on, without further add_tokens or add_special_tokens."
        )
    replaced = sorted(set(LoraAdapter(folder).replaced()) & set(matrices))
    if are_new and not recorded and replaced:
        raise WeightsError(
            f"the adapter {folder} was trained without units and replaces {', '.join(replaced)}, the new unit rows"
            " included: export it into a model first, and add the units to that."
        )


def require_fits(adapter: LoraAdapter, base: WeightSource) -> None:
    """Refuse an adapter whose weights the base does not have, or has in other shapes.

    Raises:
        WeightsError: Names the first such weight, how many there are, and the nearest name.
    """
    names = set(base.names())
    adapter = adapter.aligned(names)
    lacking = sorted(
        {*adapter.modules(), *adapter.row_names(), *adapter.replaced()} - names - set(tied_heads(adapter, base))
    )
    if lacking:
        raise WeightsError(_other_architecture(adapter, lacking, names))
    for name in adapter.modules():
        shape = adapter.replacement_shape(name) if name in adapter.replaced() else base.shape(name)
        _require_update_fits(adapter, name, shape)
    for name in set(adapter.replaced()) & names:
        held, needed = base.shape(name), adapter.replacement_shape(name)
        if held[1:] != needed[1:] or (len(held) < 2 and held != needed):
            raise WeightsError(f"the adapter {adapter.folder} has {name!r} of shape {needed}, the base of {held}.")


def tied_heads(adapter: LoraAdapter, base: WeightSource) -> dict[str, str]:
    """Return the weights trained in full that the base lacks because they are another of its weights, and which.

    A tied model stores its head as its input embeddings; an adapter may hold the same matrix twice.
    """
    names = set(base.names())
    replaced = adapter.replaced()
    kept = [name for name in replaced if name in names]
    return {
        name: other
        for name in replaced
        if name not in names
        for other in kept
        if adapter.replacement_shape(name) == adapter.replacement_shape(other)
        and torch.equal(adapter.replacement(name), adapter.replacement(other))
    }


def _require_update_fits(adapter: LoraAdapter, name: str, shape: tuple[int, ...]) -> None:
    flat, update = (shape[0], math.prod(shape[1:])), adapter.update_shape(name)
    if flat != update:
        raise WeightsError(f"the adapter {adapter.folder} needs {name!r} of shape {update}, the base has {flat}.")


def _recorded(adapter_folder: Path) -> str:
    """Return the fingerprint in an adapter's card; empty without a card."""
    return str((card.read(adapter_folder).get("base") or {}).get("fingerprint") or "")


def _other_architecture(adapter: LoraAdapter, lacking: list[str], names: set[str]) -> str:
    """Word the refusal, without listing the thousands of weights of a large model."""
    hint = suggest(lacking[0], names).split(" Known:")[0]
    nearest = f" {hint}" if hint.startswith("Did you mean") else ""
    tied = ", or the base ties that weight to its input embeddings" if set(lacking) <= set(adapter.replaced()) else ""
    return (
        f"the adapter {adapter.folder} changes {len(lacking)} weight(s) that its base does not have, such as"
        f" {lacking[0]!r}: it is of another architecture{tied}.{nearest}"
    )
