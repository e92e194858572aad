"""The host's trainer with the stage hooks in their places."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from slm_plugin import card
from slm_plugin.data.mixing import MixedDataset
from slm_plugin.host import runtime


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


def with_hooks(stock: Any) -> Any:
    """Return a subclass of the host's trainer that fires the hooks; without a block it is the host's."""

    class HookedTrainer(stock):
        """The host's trainer; see :mod:`slm_plugin.hookspecs` for what fires when."""

        optimizer: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.slm: Any = runtime.active()
            if self.slm is None:
                return
            if hasattr(self.model, "peft_config"):
                # PEFT's automatic choice writes every embedding matrix three times
                self.model.save_pretrained = functools.partial(self.model.save_pretrained, save_embedding_layers=False)
            if isinstance(self.train_dataset, MixedDataset):
                self.add_callback(EpochCallback(self.train_dataset))
            self.slm_card = make_card(self.slm, self.model)
            self.add_callback(CardCallback(self.slm_card))
            self._extra: dict[str, list[float]] = {}
            self.slm.hooks.hook.slm_stage_start(run=self.slm.run, model=self.model)

        def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
            if self.slm is not None and self.optimizer is None:
                factors = _combine(self.slm.hooks.hook.slm_parameter_groups(run=self.slm.run, model=self.model))
                if factors:
                    self.optimizer = self._optimizer_with(factors)
            optimizer = super().create_optimizer(*args, **kwargs)
            wants_gradient = self.slm is not None and self.slm.hooks.hook.slm_extra_gradient.get_hookimpls()
            # DeepSpeed asks for the optimizer twice
            if wants_gradient and not getattr(optimizer, "slm_hooked", False):
                optimizer.register_step_pre_hook(self._add_gradient)
                optimizer.slm_hooked = True
            return optimizer

        def _optimizer_with(self, factors: Mapping[str, float]) -> Any:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[float, float], list[Any]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    decay = self.args.weight_decay if name in decayed else 0.0
                    groups.setdefault((factors.get(name, 1.0), decay), []).append(parameter)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            # the host logs the rate of the first group: let that be the configured one
            ordered = sorted(groups.items(), key=lambda item: -item[0][0])
            rate = self.args.learning_rate
            return kind(
                [{"params": p, "lr": rate * factor, "weight_decay": decay} for (factor, decay), p in ordered],
                **options,
            )

        def _add_gradient(self, optimizer: Any, args: Any, kwargs: Any) -> None:
            owned = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if owned:
                values = self.slm.hooks.hook.slm_extra_gradient(run=self.slm.run, parameters=owned)
                self._note("extra_gradient", values)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            hook = self.slm.hooks.hook.slm_extra_loss if self.slm is not None and model.training else None
            if hook is None or not hook.get_hookimpls():
                return super().compute_loss(model, inputs, *args, **kwargs)
            wants_outputs = kwargs.pop("return_outputs", args[0] if args else False)
            loss, outputs = super().compute_loss(model, inputs, True, *args[1:], **kwargs)
            extra = [
                value
                for value in hook(run=self.slm.run, model=model, inputs=inputs, outputs=outputs)
                if value is not None
            ]
            if extra:
                total = torch.stack([value.to(loss.dtype) for value in extra]).sum()
                self._note("extra_loss", [float(total.detach())])
                loss = loss + total / self._micro_batches(kwargs.get("num_items_in_batch"))
            return (loss, outputs) if wants_outputs else loss

        def _micro_batches(self, n_items: Any) -> int:
            """Return by how much a term must be divided so that the step's sum is its mean."""
            divides = (not self.model_accepts_loss_kwargs or n_items is None) and self.compute_loss_func is None
            return 1 if divides else self.current_gradient_accumulation_steps

        def _note(self, key: str, values: Iterable[float | None]) -> None:
            self._extra.setdefault(key, []).append(sum(value for value in values if value is not None))

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if self.slm is not None and "loss" in logs:
                for key, values in self._extra.items():
                    logs[key] = sum(values) / max(1, len(values))
                self._extra.clear()
            super().log(logs, *args, **kwargs)

        def save_state(self) -> None:
            # the host's workflow calls this once, after it saved the final model
            super().save_state()
            if self.slm is None:
                return
            if self.is_world_process_zero():
                card.write(Path(self.args.output_dir), self.slm_card)
            self.slm.hooks.hook.slm_stage_end(run=self.slm.run, model=self.model)

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
