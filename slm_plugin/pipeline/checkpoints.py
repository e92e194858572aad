"""Checkpoints of LLaMA-Factory's trainings: which are complete, so that a training can go on from them."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

from slm_plugin.pipeline import records

STATE, INDEX = "trainer_state.json", "model.safetensors.index.json"
RESULTS = ("all_results.json", "train_results.json", STATE)
"""Files that LLaMA-Factory writes when a training has ended."""

_FOLDER = re.compile(r"checkpoint-(\d+)")
_LENGTH_BYTES = 8


def last(output_dir: Path) -> Path | None:
    """Return the last complete checkpoint of a training; None if there is none."""
    found = sorted(
        (int(match[1]), path) for path in _folders(output_dir) if (match := _FOLDER.fullmatch(path.name)) is not None
    )
    return next((path for number, path in reversed(found) if is_complete(path, number)), None)


def delete_later(checkpoint: Path) -> None:
    """Delete the checkpoints that come after one in its folder: they are incomplete."""
    number = int(checkpoint.name.rpartition("-")[2])
    for path in _folders(checkpoint.parent):
        match = _FOLDER.fullmatch(path.name)
        if match is not None and int(match[1]) > number:
            shutil.rmtree(path, ignore_errors=True)


def is_complete(folder: Path, step: int) -> bool:
    """Tell whether a checkpoint can be resumed from.

    The trainer writes its state last, after weights and optimizer. After a crash of the machine files may be cut all
    the same, so their sizes are compared with what their headers say.

    Args:
        folder: The checkpoint.
        step: Its number.
    """
    state = records.read_json(folder / STATE)
    return state is not None and state.get("global_step") == step and _has_weights(folder) and _has_optimizer(folder)


def has_any(output_dir: Path) -> bool:
    """Tell whether there is a checkpoint with weights, whether or not it can be resumed from."""
    return any(_FOLDER.fullmatch(path.name) and _has_weights(path) for path in _folders(output_dir))


def is_ended(output_dir: Path, card: str | None) -> bool:
    """Tell whether a training has written everything that it writes.

    Args:
        output_dir: Its folder.
        card: Name of the file that is written last; None if that is the trainer's state.
    """
    return is_result(output_dir) and all((output_dir / name).is_file() for name in (STATE, card) if name)


def is_result(output_dir: Path) -> bool:
    """Tell whether a training has ended in this folder and left its weights there."""
    return any((output_dir / name).is_file() for name in RESULTS) and _has_weights(output_dir)


def is_whole(path: Path) -> bool:
    """Tell whether a safetensors file has the length that its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > size:
                return False
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return size == _LENGTH_BYTES + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _folders(output_dir: Path) -> list[Path]:
    try:
        return [path for path in output_dir.iterdir() if path.is_dir()]
    except OSError:
        return []


def _has_weights(folder: Path) -> bool:
    index = records.read_json(folder / INDEX)
    weights = [*folder.glob("adapter_model.safetensors"), *folder.glob("model*.safetensors")]
    if index is not None:
        shards = index.get("weight_map")
        named = set(shards.values()) if isinstance(shards, dict) else set()
        weights += [folder / name for name in named]
    if weights:
        return all(is_whole(path) for path in weights)
    zipped = [*folder.glob("adapter_model.bin"), *folder.glob("pytorch_model*.bin")]
    # DeepSpeed and FSDP write a folder of shards
    return (bool(zipped) and all(map(zipfile.is_zipfile, zipped))) or _has_sharded(folder)


def _has_optimizer(folder: Path) -> bool:
    files = [*folder.glob("optimizer.pt"), *folder.glob("optimizer.bin")]
    return all(map(zipfile.is_zipfile, files)) if files else _has_sharded(folder)


def _has_sharded(folder: Path) -> bool:
    return any(path.is_dir() and any(path.iterdir()) for path in (*folder.glob("global_step*"), *folder.glob("*_0")))
