"""Which embedding rows an adapter trains: whole matrices, or only the rows of the units."""

from __future__ import annotations

import functools
import warnings
from typing import Any

from slm_plugin.host import runtime
from slm_plugin.host.lora_scale import discounted


def patch(adapter: Any) -> None:
    """Fill in the LoRA options that the host has no key for, where it builds them."""
    stock = adapter._setup_lora_tuning

    @functools.wraps(stock)
    def _setup_lora_tuning(
        config: Any,
        model: Any,
        model_args: Any,
        finetuning_args: Any,
        is_trainable: bool,
        cast_trainable_params_to_fp32: bool,
    ) -> Any:
        extra = _lora_options(model, finetuning_args) if is_trainable else {}
        real = adapter.LoraConfig
        if extra:
            adapter.LoraConfig = functools.partial(real, **extra)
        try:
            with warnings.catch_warnings():
                if not getattr(model.config, "tie_word_embeddings", False):
                    # PEFT warns by the class of the model, which could be tied; this one is not
                    warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
                with discounted(model, model_args, finetuning_args, is_trainable):
                    return stock(
                        config, model, model_args, finetuning_args, is_trainable, cast_trainable_params_to_fp32
                    )
        finally:
            adapter.LoraConfig = real

    adapter._setup_lora_tuning = _setup_lora_tuning


def _lora_options(model: Any, finetuning_args: Any) -> dict[str, Any]:
    """Set ``additional_target`` and return further LoRA options for the block in force."""
    active = runtime.active()
    if active is None or active.config.block.units is None or active.vocabulary is None:
        return {}
    embeddings = _embedding_names(model)
    tied = bool(model.config.tie_word_embeddings)
    # a tied model has one matrix: training a copy of it for each end would export two
    trained = embeddings[:1] if tied else embeddings
    if active.config.block.train_units == "rows":
        # an empty list keeps the host from training the whole matrices
        finetuning_args.additional_target = finetuning_args.additional_target or []
        rows = list(range(active.vocabulary.first_id, active.vocabulary.end_id))
        return {"trainable_token_indices": dict.fromkeys(trained, rows)}
    if finetuning_args.additional_target is None:
        finetuning_args.additional_target = trained
    return {"ensure_weight_tying": True} if tied else {}


def _embedding_names(model: Any) -> list[str]:
    """Return the module names of the input and the output embeddings, input first."""
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = {id(module): name.split(".")[-1] for name, module in model.named_modules()}
    return [names[id(module)] for module in wanted if id(module) in names]
