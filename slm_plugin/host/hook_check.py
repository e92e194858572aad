"""One check at the start of every training: LLaMA-Factory called each patched function that the block needs.

A version of LLaMA-Factory may reach its tokenizer, its data or its trainer by another path than the tested ones do.
The patches would then have no effect, and nothing else would show it. The check is a callback that transformers
gives to every trainer of the process, so it also runs if the trainer is not ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from slm_plugin.data.mixing import MixedDataset
from slm_plugin.errors import HostError
from slm_plugin.host import runtime, surface
from slm_plugin.host.sampling import sampler_for
from slm_plugin.host.workflows import has_block

HOST = "llamafactory."
TRAINER = "trainer."
"""Prefix of the recorded calls of our trainer's methods."""

RECORDED_METHODS = ("create_optimizer", "_get_train_sampler", "compute_loss")
"""Methods of our trainer whose calls are recorded; see :func:`record_methods`."""


class HookCheckCallback(TrainerCallback):
    """Refuses a training that bypasses a patched function, before its first optimizer step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Run the check.

        Raises:
            HostError: Names every patched function that was not called, and what is absent without it.
        """
        active = runtime.active()
        if active is None:
            if runtime.block_requested():
                raise _error([_absent("hparams.parser.get_train_args", "the whole slm block")])
            return
        if args is not active.training_args:
            # a trainer of the user's own program, after one of LLaMA-Factory in the same process
            return
        found = list(differences(active, kwargs.get("optimizer")))
        if found:
            raise _error(found)
        active.hooks_checked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the loss after the first step.

        Raises:
            HostError: A mitigation adds to the loss and our ``compute_loss`` was not called.
        """
        active = runtime.active()
        if active is None or args is not active.training_args or not active.hooks_checked:
            return
        if _implements(active, "slm_extra_loss") and f"{TRAINER}compute_loss" not in active.calls:
            raise _error([_absent("trainer.compute_loss", "terms of the loss from mitigations")])


def install() -> None:
    """Give the check to every trainer that is built from now on."""
    defaults: list[Any] = DEFAULT_CALLBACKS
    if HookCheckCallback not in defaults:
        defaults.append(HookCheckCallback)


def watch(read_args: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the host's ``read_args``: record whether there is a block, so that a bypassed parser is detected.

    The block of an earlier run in the same process is no longer in force.
    """

    @functools.wraps(read_args)
    def wrapped(args: Any = None) -> Any:
        raw = read_args(args)
        runtime.activate(None)
        runtime.set_block_requested(has_block(raw))
        if runtime.block_requested():
            install()
        return raw

    return wrapped


def with_final_check(training_function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the host's ``_training_function``: a loop that calls no callback is reported at its end at the latest."""

    @functools.wraps(training_function)
    def wrapped(config: Any) -> Any:
        result = training_function(config)
        active = runtime.active()
        if active is None:
            bypassed = runtime.block_requested()
        else:
            trained = active.training_args is not None and active.training_args.do_train
            bypassed = trained and not active.hooks_checked
        if bypassed:
            raise _error(["its training loop calls no callback of transformers, and the result is without the block"])
        return result

    return wrapped


def record_methods(trainer_class: type) -> None:
    """Record the calls of the methods of our trainer that a later version of transformers might stop calling."""
    for name in RECORDED_METHODS:
        setattr(trainer_class, name, runtime.recorded(vars(trainer_class)[name], f"{TRAINER}{name}"))


def differences(active: runtime.Active, optimizer: Any) -> Iterator[str]:
    """Yield what LLaMA-Factory did not call, each with what is absent without it.

    Args:
        active: The block in force.
        optimizer: The optimizer that the training uses, in whatever wrappers.
    """
    for symbol, effect in _expected_calls(active):
        if HOST + symbol not in active.calls:
            yield _absent(symbol, effect)
    trainer = active.trainer() if active.trainer is not None else None
    if trainer is None:
        yield f"the trainer of stage: {active.finetuning_args.stage} was built from another class (slm.json and hooks)"
        return
    yield from _trainer_differences(active, trainer, optimizer)


def _expected_calls(active: runtime.Active) -> Iterator[tuple[str, str]]:
    """Yield the patched functions that this run needs, and what each is for."""
    yield "model.loader.patch_tokenizer", "unit tokens"
    yield "data.template.get_template_and_fix_tokenizer", "the check of the template"
    yield f"train.{active.finetuning_args.stage}.workflow.get_dataset", "replay and the checks of tokenized_path"
    if active.data_args.tokenized_path is None:
        yield "data.loader._get_preprocessed_dataset", "long_samples and the counts of rows"
        if active.finetuning_args.stage == "sft":
            yield "data.loader._get_dataset_processor", "rows that long_samples has fitted"
    if active.model_args.resize_vocab:
        yield "model.patcher.resize_embedding_layer", "seeded rows of the units"
    if active.finetuning_args.finetuning_type in ("lora", "oft"):
        yield "model.adapter._setup_lora_tuning", "train_units and lora_scale"
    yield "model.adapter.init_adapter", "the check of the rows that train"


def _trainer_differences(active: runtime.Active, trainer: Any, optimizer: Any) -> Iterator[str]:
    rows, hook = trainer.train_dataset, active.hooks.hook
    if rows is not active.train_dataset:
        draws = [draw for part in hook.slm_mix_samples(run=active.run) for draw in part or ()]
        names = ", ".join(draw.dataset for draw in draws) or "none requested"
        yield f"the trainer's rows are not those of get_dataset (replay: {names})"
    elif isinstance(rows, MixedDataset) and sampler_for(rows) and f"{TRAINER}_get_train_sampler" not in active.calls:
        yield _absent("trainer._get_train_sampler", "the order of replayed rows")
    if _implements(active, "slm_parameter_groups") and f"{TRAINER}create_optimizer" not in active.calls:
        yield _absent("trainer.create_optimizer", "learning rates from mitigations")
    if _implements(active, "slm_extra_gradient") and not _is_hooked(optimizer):
        yield "the optimizer has no step hook (anchors and other terms of the gradient from mitigations)"


def _implements(active: runtime.Active, hook: str) -> bool:
    """Tell whether an object of the block implements a hook and is not set to its neutral value."""
    implementations = getattr(active.hooks.hook, hook).get_hookimpls()
    return any(not getattr(one.plugin, "neutral", False) for one in implementations)


def _is_hooked(optimizer: Any) -> bool:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return bool(getattr(optimizer, "slm_hooked", False))


def _absent(symbol: str, effect: str) -> str:
    return f"{symbol} was not called ({effect})"


def _error(found: list[str]) -> HostError:
    versions = " or ".join(surface.TESTED_VERSIONS)
    return HostError(
        f"LLaMA-Factory {surface.installed_version()} trains without parts of the slm block: {'; '.join(found)}."
        f" Install LLaMA-Factory {versions}, or remove the slm block."
    )
