"""An adapter that vLLM refuses, split into an extended base and a plain LoRA adapter on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slm_plugin import card
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import CONFIG_FILE, PREFIX, WEIGHTS_FILE, LoraAdapter
from slm_plugin.adapters.scale import norm
from slm_plugin.adapters.serving import embeddings_not_taken, has_one_scale
from slm_plugin.errors import WeightsError
from slm_plugin.weights.checkpoint import Checkpoint
from slm_plugin.weights.staging import staged
from slm_plugin.weights.tied import untie_differing
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor

MAX_SHARD_BYTES = 5_000_000_000
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth")
_TOKENIZER = ("*token*.json", "*.model", "*.tiktoken", "vocab*", "merges.txt", "chat_template*")


def convert(adapter_folder: Path, base_folder: Path, output: Path) -> None:
    """Write ``output/base`` and ``output/adapter``, which together give the logits of the original.

    The base takes what is trained in full, single rows, biases, updates that vLLM has no place for, and
    DoRA's lengths: with ``d = magnitude / norm(W0 + delta)``, ``d * (W0 + scale B A)`` is the base ``d * W0``
    with the plain update ``scale (d * B) A``. The adapter keeps the low-rank updates, with one scale and, where
    ranks differ, zeros up to the largest.

    Raises:
        WeightsError: A part cannot be read or does not fit, ``output`` holds files, or the disk is full.
    """
    weights = Checkpoint(base_folder)
    adapter = LoraAdapter(adapter_folder).aligned(weights.names())
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise WeightsError(f"{output} is not an empty folder; give a new one for the converted adapter.")
    with staged(output) as partial:
        base = _ExtendedBase(weights, adapter, embeddings_not_taken(adapter, base_folder))
        _write_base(base, base_folder, partial / "base")
        _write_adapter(base, partial / "adapter", output / "base")
        record = {
            **card.read(adapter_folder),
            "converted_from": str(adapter_folder),
            "base": {"path": str(output / "base"), "fingerprint": card.fingerprint(partial / "base")},
        }
        card.write(partial / "adapter", record)


class _ExtendedBase:
    """The weights of the base with all folded in that plain LoRA cannot express.

    Args:
        base: What the adapter was trained on.
        adapter: The adapter.
        whole: Weights whose update is folded in as well.
    """

    def __init__(self, base: Checkpoint, adapter: LoraAdapter, whole: list[str]) -> None:
        self.base = base
        self.adapter = adapter
        self.whole = set(whole)
        self.folded = FoldedCheckpoint(base, adapter)
        self.without_updates = FoldedCheckpoint(base, adapter, 0.0)

    def tensor(self, name: str) -> torch.Tensor:
        """Read a weight of the extended base."""
        if name in self.whole:
            return self.folded.tensor(name)
        # a factor of 0 leaves everything but the low-rank updates
        weight = self.without_updates.tensor(name)
        shares = self.shares(name)
        return weight if shares is None else (shares * weight.float()).to(weight.dtype)

    def shares(self, name: str) -> torch.Tensor | None:
        """Return DoRA's ``magnitude / norm(W0 + delta)``, of a shape to multiply the weight; None without."""
        decomposed = self.adapter.decomposed(name)
        if decomposed is None:
            return None
        weight = self.without_updates.tensor(name).float()
        shares = decomposed.magnitude / norm(weight + decomposed.low_rank.delta(), decomposed.axis)
        return shares[:, None] if decomposed.axis == 0 else shares[None]


def _write_base(base: _ExtendedBase, source: Path, folder: Path) -> None:
    names = base.folded.names()
    plan = [PlannedTensor(name, base.folded.shape(name), base.folded.dtype(name)) for name in names]
    folder.mkdir(parents=True)
    with CheckpointWriter(folder, plan, MAX_SHARD_BYTES) as writer:
        for name in names:
            writer.write(name, base.tensor(name))
    weights = {path for pattern in _WEIGHTS for path in source.glob(pattern)}
    for path in source.iterdir():
        if path.is_file() and path not in weights and path.name != card.FILE_NAME:
            shutil.copyfile(path, folder / path.name)
    # the tokenizer with the units is the adapter's, where it brings one
    for path in {path for pattern in _TOKENIZER for path in base.adapter.folder.glob(pattern)}:
        shutil.copyfile(path, folder / path.name)
    _set_vocabulary(base, folder / "config.json")
    untie_differing(folder)
    record = {**card.read(source), "base": {"path": str(source), "fingerprint": card.fingerprint(source)}}
    units = card.read(base.adapter.folder).get("units")
    card.write(folder, {**record, **({"units": units} if units else {}), "extended_by": str(base.adapter.folder)})


def _set_vocabulary(base: _ExtendedBase, path: Path) -> None:
    """State the number of rows where the adapter brought further ones."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        before = part.get("vocab_size")
        heights = {
            base.folded.shape(name)[0]
            for name in base.adapter.replaced()
            if name in base.folded.names() and base.base.shape(name)[0] == before
        }
        if len(heights) == 1:
            part["vocab_size"] = heights.pop()
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_adapter(base: _ExtendedBase, folder: Path, base_path: Path) -> None:
    adapter = base.adapter
    names = [name for name in adapter.modules() if name not in base.whole]
    if not names:
        raise WeightsError(f"{adapter.folder} has no low-rank update to serve: export it as a model instead.")
    keeps = has_one_scale(adapter) and len({adapter.rank(name) for name in names}) == 1
    rank = max(adapter.rank(name) for name in names)
    tensors: dict[str, torch.Tensor] = {}
    for key, (kind, name) in adapter.kinds().items():
        if kind not in ("up", "down") or name in base.whole:
            continue
        tensor = adapter.read(key)
        changed = tensor.float()
        shares = base.shares(name)
        if shares is not None and kind == "up":
            changed = changed * shares.reshape(-1, 1)
        if not keeps:
            changed = changed * adapter.scale(name) if kind == "up" else changed
            changed = _padded(changed, rank, dim=1 if kind == "up" else 0)
        tensors[key if key.startswith(PREFIX) else PREFIX + key] = changed.to(tensor.dtype).contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = _plain_config(adapter.config, names, base_path)
    if not keeps:
        # the scales are in the matrices now
        config |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _padded(tensor: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    missing = rank - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _plain_config(config: dict[str, Any], names: list[str], base_path: Path) -> dict[str, Any]:
    return {
        **config,
        "base_model_name_or_path": str(base_path),
        "target_modules": sorted({name.split(".")[-2] for name in names}),
        "rank_pattern": {},
        "alpha_pattern": {},
        "bias": "none",
        "modules_to_save": None,
        "trainable_token_indices": None,
        "ensure_weight_tying": False,
        "use_dora": False,
        "inference_mode": True,
    }
