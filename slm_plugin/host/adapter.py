"""What ``slm.train_units`` asks of PEFT: whole matrices, or only the rows of the units."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

from peft.utils.constants import EMBEDDING_LAYER_NAMES

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime
from slm_plugin.host.lora_scale import discounted
from slm_plugin.host.trained_units import continues, naming, require_trained_units
from slm_plugin.training.vocabulary_matrices import is_tied, own_matrices, vocabulary_modules


def patch(adapter: Any) -> None:
    """Fill in the LoRA options that the host has no key for where it builds them, and check what trains."""
    stock_setup, stock_init = adapter._setup_lora_tuning, adapter.init_adapter

    @functools.wraps(stock_setup)
    def _setup_lora_tuning(
        config: Any,
        model: Any,
        model_args: Any,
        finetuning_args: Any,
        is_trainable: bool,
        cast_trainable_params_to_fp32: bool,
    ) -> Any:
        is_new = is_trainable and not continues(model_args, finetuning_args)
        extra = _lora_options(model, finetuning_args) if is_new else {}
        real = adapter.LoraConfig
        if extra:
            adapter.LoraConfig = functools.partial(real, **extra)
        try:
            with warnings.catch_warnings():
                if not getattr(model.config, "tie_word_embeddings", False):
                    # PEFT warns by the class of the model, which could be tied; this one is not
                    warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
                with discounted(model, model_args, finetuning_args, is_trainable):
                    return stock_setup(
                        config, model, model_args, finetuning_args, is_trainable, cast_trainable_params_to_fp32
                    )
        finally:
            adapter.LoraConfig = real

    @functools.wraps(stock_init)
    def init_adapter(config: Any, model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool) -> Any:
        stated = list(finetuning_args.additional_target or [])
        built = stock_init(config, model, model_args, finetuning_args, is_trainable)
        active = runtime.active()
        if is_trainable and active is not None:
            require_trained_units(active, built, model_args, finetuning_args, stated)
        return built

    adapter._setup_lora_tuning = _setup_lora_tuning
    adapter.init_adapter = init_adapter


def _lora_options(model: Any, finetuning_args: Any) -> dict[str, Any]:
    """Set ``additional_target`` and return further LoRA options for the block in force.

    Raises:
        ConfigError: ``lora_target`` or, with ``train_units: rows``, ``additional_target`` trains the same matrices
            in another way, or PEFT would compute with a part of the head only.
    """
    active = runtime.active()
    if active is None or active.vocabulary is None:
        return {}
    if active.config.block.units is None and not active.promises_units:
        return {}
    # a tied model has one matrix: training a copy of it for each of its uses would export two
    trained = [path.split(".")[-1] for path in own_matrices(model)]
    targets = list(finetuning_args.additional_target or [])
    whole = naming(targets, vocabulary_modules(model))
    how = active.config.block.train_units
    refusal = _refusal(
        how, model, whole, naming(finetuning_args.lora_target, vocabulary_modules(model)), trained, targets
    )
    if refusal:
        raise ConfigError([Problem("slm.train_units", f"{how} {refusal}")])
    if how == "rows":
        # an empty list keeps the host from training the whole matrices
        finetuning_args.additional_target = targets
        rows = list(range(active.vocabulary.first_id, active.vocabulary.end_id))
        return {"trainable_token_indices": dict.fromkeys(trained, rows)}
    if finetuning_args.additional_target is None:
        finetuning_args.additional_target = whole = trained
    elif whole and is_tied(model):
        finetuning_args.additional_target = [*trained, *(target for target in targets if target not in whole)]
        if whole != trained:
            runtime.say(f"additional_target: this model ties its head to {trained[0]}, which trains for both.")
    return {"ensure_weight_tying": True} if whole and is_tied(model) else {}


def _refusal(
    how: str, model: Any, whole: Sequence[str], low_rank: Sequence[str], trained: Sequence[str], targets: Sequence[str]
) -> str:
    """Return why PEFT cannot train the rows that a new adapter should train; empty if it can.

    Args:
        how: ``train_units``.
        model: The model without an adapter.
        whole: Targets of ``additional_target`` that name embeddings or head.
        low_rank: Targets of ``lora_target`` that name embeddings or head.
        trained: Names of the modules with a matrix of their own.
        targets: All of ``additional_target``.
    """
    modules = vocabulary_modules(model)
    biased = [path for path in modules if getattr(modules[path], "bias", None) is not None]
    if low_rank:
        return (
            f"trains rows of embeddings and head in full, but lora_target names {', '.join(low_rank)}, which trains a"
            " low-rank update of the same matrix. Take it out of lora_target."
        )
    if how == "rows" and whole:
        return (
            f"trains the unit rows alone, but additional_target names {', '.join(whole)}, which trains whole matrices."
            f" Take {'it' if len(whole) == 1 else 'them'} out of additional_target, or set train_units: modules."
        )
    if how == "rows" and biased:
        return f"cannot be trained in {biased[0]}, because PEFT leaves its bias out then. Set train_units: modules."
    if how == "modules" and is_tied(model) and (whole or not targets) and trained[0] not in EMBEDDING_LAYER_NAMES:
        return (
            f"would train a copy of {trained[0]} that the tied head does not use: PEFT ties"
            f" {' and '.join(EMBEDDING_LAYER_NAMES)} only. Set train_units: rows, or finetuning_type: full."
        )
    return ""
