"""Replay rows chosen by their loss under the model in training."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from slm_plugin.data.mixing import MixedDataset
from slm_plugin.data.sourced import SOURCE_COLUMN
from slm_plugin.data.surprise import candidate_rows, choose_rows
from slm_plugin.errors import DataError
from slm_plugin.host import runtime

FILE_NAME = "slm_replay_rows.json"
"""In every checkpoint: the rows in force and the epoch they were chosen in, for a run that resumes."""

_IGNORED = -100


class SurpriseCallback(TrainerCallback):
    """Chooses the rows of every source that is drawn by surprise, where an epoch begins.

    Args:
        trainer: The host's trainer.
        dataset: Its training rows.
    """

    def __init__(self, trainer: Any, dataset: MixedDataset) -> None:
        self.trainer, self.dataset = trainer, dataset
        self.ranked = [number for number, source in enumerate(dataset.sources) if source.surprise]
        self.epoch_of: dict[int, int] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the rows of the checkpoint that training resumes from."""
        folder = args.resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(args.output_dir)
        if not self.ranked or not folder or not state.global_step:
            return
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise DataError(f"{path} is missing: replay by surprise resumes only from checkpoints of such a run.")
        saved = json.loads(path.read_text(encoding="utf-8"))
        for number in self.ranked:
            source = self.dataset.sources[number]
            entry = saved.get(str(number), {"rows": ()})
            if len(entry["rows"]) != source.n_rows:
                raise DataError(
                    f"{path} has {len(entry['rows'])} rows of {source.name!r}, this run draws {source.n_rows};"
                    " resume with the ratios and data that the run began with."
                )
            self.dataset.choose(number, np.asarray(entry["rows"], dtype=np.int64))
            self.epoch_of[number] = entry["epoch"]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score candidates and choose, before the first epoch and where a source is resampled."""
        epoch = int(state.epoch or 0)
        for number in self.ranked:
            resampled = self.dataset.sources[number].resample == "epoch" and self.epoch_of.get(number) != epoch
            if number not in self.epoch_of or resampled:
                self._choose(number, epoch)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the rows in force beside the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not (self.ranked and state.is_world_process_zero and folder.is_dir()):
            return
        drawn = self.dataset.drawn()
        content = {
            str(number): {"epoch": self.epoch_of[number], "rows": drawn[number].tolist()} for number in self.ranked
        }
        temporary = folder / f".{FILE_NAME}.{os.getpid()}"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(folder / FILE_NAME)

    def _choose(self, number: int, epoch: int) -> None:
        source, seed = self.dataset.sources[number], self.dataset.seed
        assert source.surprise is not None, "ranked sources are drawn by surprise"
        n_pool, n_rows = len(source.rows), source.n_rows
        rows_C = candidate_rows(n_pool, n_rows, source.surprise.candidates, seed, source.name, epoch)
        losses_C = row_losses(self.trainer, [source.rows[int(row)] for row in rows_C])
        chosen = choose_rows(n_pool, n_rows, rows_C, losses_C, source.surprise.temperature, seed, source.name, epoch)
        self.dataset.choose(number, chosen)
        self.epoch_of[number] = epoch
        if len(rows_C):
            kept = np.nanmean(losses_C[np.isin(rows_C, chosen[n_rows - n_rows % n_pool :])])
            runtime.say(
                f"replay by surprise, epoch {epoch}: {source.name} {n_rows % n_pool} of {len(rows_C)} candidates,"
                f" mean loss {kept:.3f} of {np.nanmean(losses_C):.3f}"
            )


def row_losses(trainer: Any, rows: Sequence[Any]) -> np.ndarray:
    """Return each row's mean loss per answer token under the model as it stands, in nats.

    Every process scores the batches that fall to it and all end with the same numbers. Batches are made
    as if there were one process, every process does the same number of forward passes (as ZeRO-3 and
    FSDP need), and neither the modes of the modules nor any random state are changed.

    Args:
        trainer: The host's trainer, its model prepared for training.
        rows: Tokenised rows.

    Returns:
        ``(N,)`` float64; not a number for rows without an answer.
    """
    args, accelerator, model = trainer.args, trainer.accelerator, trainer.model_wrapped
    order = np.argsort([-len(row["input_ids"]) for row in rows], kind="stable")
    size = args.per_device_train_batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    n_rounds = -(-len(batches) // accelerator.num_processes)
    losses_N = torch.zeros(len(rows), dtype=torch.float32, device=accelerator.device)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for turn in range(n_rounds):
            number = turn * accelerator.num_processes + accelerator.process_index
            # a process without a batch of its own keeps step with the others
            batch = batches[min(number, len(batches) - 1)]
            losses_B = _batch_losses(trainer, model, [dict(rows[row]) for row in batch])
            if number < len(batches):
                losses_N[torch.as_tensor(batch, device=losses_N.device)] = losses_B
    finally:
        for module, mode in modes:
            module.training = mode
    # one process wrote each number and the others hold 0 there, so the sum is exact
    return np.asarray(accelerator.reduce(losses_N, reduction="sum").cpu().double().numpy())


def _batch_losses(trainer: Any, model: Any, features: list[dict[str, Any]]) -> torch.Tensor:
    inputs = dict(trainer._prepare_inputs(trainer.data_collator(features)))
    inputs.pop(SOURCE_COLUMN, None)
    labels_BT = inputs.pop("labels")[:, 1:]
    with torch.no_grad(), trainer.compute_loss_context_manager():
        logits_BTV = model(**inputs, use_cache=False).logits[:, :-1].float()
    losses_BT = functional.cross_entropy(
        logits_BTV.transpose(1, 2), labels_BT, ignore_index=_IGNORED, reduction="none"
    )
    # 0 / 0 is not a number: a row whose answer was cut off has no loss
    return (losses_BT.sum(1) / (labels_BT != _IGNORED).sum(1)).float()
