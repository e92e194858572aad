"""The weights that a stage started from, kept in memory and, for resumed runs, beside the checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from slm_plugin.errors import WeightsError
from slm_plugin.records import StageRun
from slm_plugin.weights.durable import settle
from slm_plugin.weights.permissions import share

FOLDER = "slm_stage_start"
"""Folder in ``output_dir``; a folder of its own because engines load every ``*.safetensors`` of a model's."""

WHOLE = "weights.safetensors"


def shard_name(run: StageRun) -> str:
    """Return the file name of this process's share where weights are partitioned over processes."""
    return f"rank-{run.process_index}-of-{run.n_processes}.safetensors"


def at_start(run: StageRun, weights: Mapping[str, torch.Tensor], file: str = WHOLE) -> dict[str, torch.Tensor]:
    """Return copies of weights as they were when the stage began.

    In a run from the start these are copies of the weights now, so it must be called before the first
    optimizer step; where the run writes checkpoints they are also kept in ``output_dir/slm_stage_start``.
    In a resumed run they are read from there.

    Args:
        run: The run.
        weights: Weights of any shape by name.
        file: Name of the file; :data:`WHOLE` is written by the first process only.

    Returns:
        Copies by name, each of the shape, type and device of its weight.

    Raises:
        WeightsError: A resumed run finds no such file, or one of other weights.
    """
    if run.resume_from is None:
        copies = {name: weight.detach().clone() for name, weight in weights.items()}
        if run.saves_checkpoints and (file != WHOLE or run.process_index == 0):
            keep(run.output_dir / FOLDER / file, copies)
        return copies
    path = _find(run, file)
    try:
        kept = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from None
    missing = [name for name in weights if name not in kept or kept[name].shape != weights[name].shape]
    if missing:
        raise WeightsError(
            f"{path} holds the start of another training: {len(missing)} of {len(weights)} weights are missing in it"
            f" or have other shapes, {missing[0]} for one. Resume with the settings of the first run."
        )
    own = run.output_dir / FOLDER / file
    if run.saves_checkpoints and path.resolve() != own.resolve() and (file != WHOLE or run.process_index == 0):
        _move_in(own, lambda temporary: shutil.copyfile(path, temporary))
    return {
        name: kept[name].to(device=weight.device, dtype=weight.dtype, copy=True) for name, weight in weights.items()
    }


def keep(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write weights of any shape by name to a safetensors file, whole or not at all."""
    # a name of its own for every tensor: safetensors refuses shared storage
    plain = {name: weight.detach().to("cpu").contiguous() for name, weight in weights.items()}
    _move_in(path, lambda temporary: save_file(plain, temporary))


def forget(run: StageRun) -> None:
    """Remove what was kept, unless checkpoints remain that a later run could continue from."""
    if run.process_index == 0 and not any(run.output_dir.glob("checkpoint-*")):
        shutil.rmtree(run.output_dir / FOLDER, ignore_errors=True)


def _find(run: StageRun, file: str) -> Path:
    assert run.resume_from is not None
    folders = [run.resume_from, run.resume_from.parent, run.output_dir]
    for folder in folders:
        if (folder / FOLDER / file).is_file():
            return folder / FOLDER / file
    others = sorted(path.name for path in (run.resume_from.parent / FOLDER).glob("*.safetensors"))
    hint = f" That folder holds {', '.join(others)}: resume with as many processes." if others else ""
    raise WeightsError(
        f"{run.resume_from} can be resumed with an anchor only with the weights that its stage started from:"
        f" {folders[1] / FOLDER / file} is missing.{hint}"
    )


def _move_in(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        share(temporary)
        settle(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise WeightsError(f"{path} cannot be written: {error}.") from None
