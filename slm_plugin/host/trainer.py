"""The host's trainer with the stage hooks in their places."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from slm_plugin import card
from slm_plugin.data.mixing import MixedDataset
from slm_plugin.data.sourced import SOURCE_COLUMN
from slm_plugin.host import hook_check, runtime
from slm_plugin.host.probes import ProbeCallback
from slm_plugin.host.sampling import sampler_for
from slm_plugin.host.shown_units import WithUnitsCounted, units_shown
from slm_plugin.host.surprise import SurpriseCallback
from slm_plugin.records import StageRun
from slm_plugin.training.optimizers import scale_rates
from slm_plugin.weights.staging import staged, whole


class EpochCallback(TrainerCallback):
    """Tells a mixed data set which epoch begins; accelerate does so only in single-process runs."""

    def __init__(self, dataset: MixedDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the rows of this epoch."""
        self.dataset.set_epoch(int(state.epoch or 0))


class CardCallback(TrainerCallback):
    """Writes ``slm.json`` into every checkpoint."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the card beside the checkpoint that was just saved."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            card.write(folder, self.content)


class Means:
    """Means of what hooks return between two lines of the log."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, int, Any]] = {}

    def add(self, key: str, value: Any, occasion: object) -> None:
        """Add a value; those of one occasion, such as an optimizer step, are summed and count once."""
        total, n, last = self._held.get(key, (0.0, 0, None))
        self._held[key] = (total + value, n + (occasion != last or n == 0), occasion)

    def means(self) -> dict[str, Any]:
        """Return the means by key and begin anew."""
        found = {key: total / n for key, (total, n, _) in self._held.items()}
        self._held.clear()
        return found


@contextlib.contextmanager
def outputs_of(model: Any) -> Iterator[list[Any]]:
    """Collect what a model returns from its forwards inside."""
    seen: list[Any] = []
    handle = model.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    try:
        yield seen
    finally:
        handle.remove()


def checkpoints_of(arguments: Any) -> dict[str, Any]:
    """Return from where a run continues and whether it writes checkpoints, by the host's training arguments."""
    resumed = arguments.resume_from_checkpoint
    if resumed in (True, "True", "true"):
        resumed = get_last_checkpoint(arguments.output_dir)
    return {
        "resume_from": Path(resumed) if resumed else None,
        "saves_checkpoints": arguments.save_strategy != "no",
    }


def with_hooks(stock: Any) -> Any:
    """Return a subclass of the host's trainer that fires the hooks; without a block it is the host's."""

    class HookedTrainer(stock):
        """The host's trainer; see :mod:`slm_plugin.hookspecs` for what fires when."""

        optimizer: Any
        compute_metrics: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.slm: Any = runtime.active()
            if self.slm is None:
                return
            self.slm.trainer = weakref.ref(self)
            # a reward model is a value head around the model
            adapted: Any = getattr(self.model, "pretrained_model", self.model)
            if hasattr(adapted, "peft_config"):
                # PEFT's automatic choice writes every embedding matrix three times
                adapted.save_pretrained = functools.partial(adapted.save_pretrained, save_embedding_layers=False)
            if isinstance(self.train_dataset, MixedDataset):
                self.add_callback(EpochCallback(self.train_dataset))
                self.add_callback(SurpriseCallback(self, self.train_dataset))
            if (
                self.args.predict_with_generate
                and self.slm.vocabulary is not None
                and self.compute_metrics is not None
            ):
                self.compute_metrics = WithUnitsCounted(self.compute_metrics, self.slm.vocabulary)
            self.slm_card = make_card(self.slm, self.model)
            self.add_callback(CardCallback(self.slm_card))
            if self.slm.config.probes is not None:
                self.add_callback(ProbeCallback(self, self.slm.config.probes, self.slm_card))
            self._noted = Means()
            self.slm.hooks.hook.slm_stage_start(run=self.slm_run, model=self.model)

        @property
        def slm_run(self) -> StageRun:
            """What hooks are told about this run, the checkpoint it continues from included."""
            return dataclasses.replace(self.slm.run, **checkpoints_of(self.args))

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            fresh = self.optimizer is None
            optimizer = super().create_optimizer(*args, **kwargs)
            if self.slm is not None:
                # DeepSpeed asks for the optimizer twice
                if fresh:
                    factors = _combine(self.slm.hooks.hook.slm_parameter_groups(run=self.slm_run, model=self.model))
                    named = self.model.named_parameters()
                    scale_rates(optimizer, {p: factors[name] for name, p in named if name in factors})
                self._hook_step(optimizer)
            return optimizer

        def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
            # accelerate may have put another optimizer in place of the one that was made
            if self.slm is not None:
                self._hook_step(self.optimizer)
            return super().create_scheduler(*args, **kwargs)

        def _hook_step(self, optimizer: Any) -> None:
            while hasattr(optimizer, "optimizer"):
                optimizer = optimizer.optimizer
            wanted = self.slm.hooks.hook.slm_extra_gradient.get_hookimpls()
            # what DeepSpeed's own configuration names has no such hook until it is made
            if wanted and hasattr(optimizer, "register_step_pre_hook") and not getattr(optimizer, "slm_hooked", False):
                optimizer.register_step_pre_hook(self._add_gradient)
                optimizer.slm_hooked = True

        def _add_gradient(self, optimizer: Any, args: Any, kwargs: Any) -> None:
            owned = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if not owned:
                return
            scale = getattr(optimizer, "grad_scale", None)
            if scale is not None:
                # fused optimizers divide by the loss scale inside their step: what is added must come after
                torch._foreach_div_([p.grad for p in owned], scale)
                optimizer.grad_scale = None
            values = self.slm.hooks.hook.slm_extra_gradient(run=self.slm_run, parameters=owned)
            found = [value for value in values if value is not None]
            if found:
                self._noted.add("extra_gradient", sum(found), self.state.global_step)

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return sampler_for(self.train_dataset) or super()._get_train_sampler(*args, **kwargs)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            # not an argument of any model's forward
            sources = {SOURCE_COLUMN: inputs.pop(SOURCE_COLUMN)} if SOURCE_COLUMN in inputs else {}
            hook = self.slm.hooks.hook.slm_extra_loss if self.slm is not None and model.training else None
            if hook is None or not hook.get_hookimpls():
                return super().compute_loss(model, inputs, *args, **kwargs)
            wants_outputs = kwargs.pop("return_outputs", args[0] if args else False)
            # the host takes the labels out of the mapping where it computes the loss itself
            if self.finetuning_args.use_asft_loss:
                # this loss of the host returns no outputs, whatever return_outputs is
                with outputs_of(model) as seen:
                    loss = super().compute_loss(model, dict(inputs), *args[1:], **kwargs)
                outputs = seen[-1]
            else:
                loss, outputs = super().compute_loss(model, dict(inputs), True, *args[1:], **kwargs)
            micro_batches, weight = self._share(inputs.get("labels"), kwargs.get("num_items_in_batch"))
            # the module itself: a second forward through a wrapper for several processes would confuse it
            values = hook(
                run=self.slm_run, model=self.model, inputs={**inputs, **sources}, outputs=outputs, weight=weight
            )
            extra = [value.to(loss.dtype) for value in values if value is not None]
            total = torch.stack(extra).sum() if extra else torch.zeros_like(loss)
            self._noted.add("extra_loss", total.detach(), object())
            if extra:
                loss = loss + total / micro_batches
            return (loss, outputs) if wants_outputs else loss

        def _share(self, labels: Any, n_items: Any) -> tuple[int, Any]:
            """Return by what to divide a term so that the step's sum is its mean, and the weight of this micro-batch.

            The host divides the loss either by the micro-batches of a step, or by the answer tokens of the
            whole step over all processes (``n_items``); the second makes micro-batches weigh by their tokens.
            """
            if (not self.model_accepts_loss_kwargs or n_items is None) and self.compute_loss_func is None:
                return 1, 1.0
            micro_batches = self.current_gradient_accumulation_steps
            if n_items is None or labels is None:
                return micro_batches, 1.0
            processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            return micro_batches, labels.ne(-100).sum() * (micro_batches * processes) / n_items

        def save_predictions(self, dataset: Any, predict_results: Any, skip_special_tokens: bool = True) -> None:
            shown: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
            if self.slm is not None and self.slm.vocabulary is not None and self.slm.shows_units:
                shown = units_shown(self.processing_class, self.slm.vocabulary)
            with shown:
                super().save_predictions(dataset, predict_results, skip_special_tokens)

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if self.slm is not None and "loss" in logs:
                for key, mean in self._noted.means().items():
                    # a penalty's value is already that of all processes
                    shared = key == "extra_loss" and self.accelerator.num_processes > 1
                    logs[key] = float(self.accelerator.reduce(mean, "mean") if shared else mean)
            super().log(logs, *args, **kwargs)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            if self.slm is None:
                super()._save(output_dir, state_dict)
                return
            with staged(Path(output_dir or self.args.output_dir)) as partial:
                super()._save(str(partial), state_dict)

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            if self.slm is None:
                super()._save_checkpoint(*args, **kwargs)
                return
            with whole(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
                super()._save_checkpoint(*args, **kwargs)

        def save_state(self) -> None:
            # the host's workflow calls this once, after it saved the final model
            super().save_state()
            if self.slm is None:
                return
            if self.is_world_process_zero():
                card.write(Path(self.args.output_dir), self.slm_card)
            self.slm.hooks.hook.slm_stage_end(run=self.slm_run, model=self.model)

    hook_check.record_methods(HookedTrainer)
    HookedTrainer.__name__ = stock.__name__
    HookedTrainer.__qualname__ = stock.__qualname__
    return HookedTrainer


def make_card(active: runtime.Active, model: Any) -> dict[str, Any]:
    """Return the content of ``slm.json`` for an adapter or model trained with this block."""
    source = getattr(getattr(model, "config", None), "_name_or_path", "")
    return {
        "stage": active.config.block.stage,
        "units": active.unit_record(),
        "base": {"path": source, "fingerprint": card.fingerprint(Path(source)) if source else ""},
        "seed": active.seed,
        "mitigations": active.config.block.mitigations,
        "replay": active.facts.get("replay", {}),
        **{key: value for key, value in active.facts.items() if key != "replay"},
    }


def _combine(factors: Iterable[Mapping[str, float] | None]) -> dict[str, float]:
    """Multiply the learning-rate factors of several mitigations, name by name."""
    combined: dict[str, float] = {}
    for part in factors:
        for name, factor in (part or {}).items():
            combined[name] = combined.get(name, 1.0) * factor
    return combined
