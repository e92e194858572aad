"""Which rows of embeddings and head train: what ``slm.train_units`` sets, and the check that it came true."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime
from slm_plugin.host.lora_scale import discounted
from slm_plugin.training.vocabulary_matrices import height, is_tied, own_matrices, trained_rows, vocabulary_modules


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
        is_new = is_trainable and not _continues(model_args, finetuning_args)
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
            _require_trained_units(active, built, model_args, finetuning_args, stated)
        return built

    adapter._setup_lora_tuning = _setup_lora_tuning
    adapter.init_adapter = init_adapter


def _lora_options(model: Any, finetuning_args: Any) -> dict[str, Any]:
    """Set ``additional_target`` and return further LoRA options for the block in force.

    Raises:
        ConfigError: ``lora_target`` or, with ``train_units: rows``, ``additional_target`` trains the same matrices
            in another way.
    """
    active = runtime.active()
    if active is None or active.vocabulary is None:
        return {}
    if active.config.block.units is None and not active.promises_units:
        return {}
    # a tied model has one matrix: training a copy of it for each of its uses would export two
    trained = [path.split(".")[-1] for path in own_matrices(model)]
    targets = list(finetuning_args.additional_target or [])
    whole = _naming(targets, model)
    low_rank = _naming(finetuning_args.lora_target, model)
    if low_rank:
        text = (
            f"{active.config.block.train_units} trains rows of embeddings and head in full, but lora_target names"
            f" {', '.join(low_rank)}, which trains a low-rank update of the same matrix. Take it out of lora_target."
        )
        raise ConfigError([Problem("slm.train_units", text)])
    if active.config.block.train_units == "rows":
        if whole:
            text = (
                f"rows trains the unit rows alone, but additional_target names {', '.join(whole)}, which trains whole"
                f" matrices. Take {'it' if len(whole) == 1 else 'them'} out of additional_target, or set train_units:"
                " modules."
            )
            raise ConfigError([Problem("slm.train_units", text)])
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


def _continues(model_args: Any, finetuning_args: Any) -> bool:
    return bool(model_args.adapter_name_or_path) and not finetuning_args.create_new_adapter


def _naming(targets: Sequence[str], model: Any) -> list[str]:
    """Return the targets that name input embeddings or head."""
    paths = list(vocabulary_modules(model))
    return [target for target in targets if any(_names(target, path) for path in paths)]


def _names(target: str, path: str) -> bool:
    """Tell whether a module's path ends in a target of the host's keys."""
    return path == target or path.endswith(f".{target}")


def _require_trained_units(
    active: runtime.Active, model: Any, model_args: Any, finetuning_args: Any, stated: Sequence[str]
) -> None:
    """Refuse a model in which other rows train than ``train_units`` says, in either of embeddings and head.

    A block that does not name units promises nothing; what does not train is then one line of the log.

    Args:
        active: The block in force, with its vocabulary.
        model: The model as it will train.
        model_args: The host's model arguments.
        finetuning_args: The host's finetuning arguments.
        stated: ``additional_target`` as the user wrote it.

    Raises:
        ConfigError: Names the matrices, what trains of them, and the key that helps.
    """
    vocabulary = active.vocabulary
    if vocabulary is None:
        if active.promises_units:
            text = "is set, but the tokenizer has no units. Set slm.units, or start from a units base."
            raise ConfigError([Problem("slm.train_units", text)])
        return
    modules = vocabulary_modules(model)
    units = set(range(vocabulary.first_id, vocabulary.end_id))
    short = {path: height(module) for path, module in modules.items() if height(module) < vocabulary.end_id}
    if short:
        path, rows = next(iter(short.items()))
        text = (
            f"end at token {vocabulary.end_id - 1}, but {path} has {rows} rows: the tokenizer of this model has units,"
            " its weights have none. Set resize_vocab: true, or use the folder that the units base was exported to."
        )
        raise ConfigError([Problem("slm.units", text)])
    trained = {path: trained_rows(module) for path, module in modules.items()}
    if not active.promises_units:
        frozen = [path for path, rows in trained.items() if not units <= rows]
        if frozen:
            runtime.say(f"unit rows do not train in {', '.join(frozen)}: slm.units is not set, so none were promised.")
        return
    rows_only = active.config.block.train_units == "rows"
    wrong = {
        path: rows
        for path, rows in trained.items()
        if (rows != units if rows_only else len(rows) < height(modules[path]))
    }
    if not wrong:
        return
    found = "; ".join(f"{path}: {_extent(rows, units, height(modules[path]))}" for path, rows in wrong.items())
    wanted = "the unit rows alone" if rows_only else "all rows"
    help_ = _help(wrong, units, own_matrices(model), model_args, finetuning_args, stated, rows_only)
    text = f"{active.config.block.train_units} trains {wanted} of {' and '.join(modules)}, but this run does not"
    raise ConfigError([Problem("slm.train_units", f"{text} ({found}). {help_}")])


def _extent(rows: Any, units: set[int], n_rows: int) -> str:
    if not rows:
        return "no row trains in full"
    if rows == units:
        return "the unit rows alone train"
    return "all rows train" if len(rows) == n_rows else f"{len(rows)} rows train, {len(rows & units)} of them units"


def _help(
    wrong: dict[str, Any],
    units: set[int],
    own: dict[str, Any],
    model_args: Any,
    finetuning_args: Any,
    stated: Sequence[str],
    rows_only: bool,
) -> str:
    """Return what to change in the host's keys or ours so that the promised rows train."""
    names = [path.split(".")[-1] for path in own]
    kind = finetuning_args.finetuning_type
    if kind == "full":
        return "Set freeze_language_model: false; the embeddings are part of the language model."
    if kind == "freeze":
        extra = list(dict.fromkeys([*(finetuning_args.freeze_extra_modules or []), *names]))
        return f"Set freeze_extra_modules: {','.join(extra)}."
    earlier = (model_args.adapter_name_or_path or [None])[-1]
    if _continues(model_args, finetuning_args):
        other = "modules" if rows_only else "rows"
        same = all(rows == units for rows in wrong.values()) if not rows_only else all(wrong.values())
        hint = f"; set train_units: {other} to go on as that adapter was trained" if same else ""
        return (
            f"The adapter {earlier} is continued as it was made. Set create_new_adapter: true to merge it into the"
            f" model and train a new one{hint}."
        )
    if stated and not rows_only:
        rest = [target for target in stated if not any(_names(target, path) for path in own)]
        return f"Set additional_target: {','.join([*names, *rest])}, or leave it out."
    if earlier is not None:
        # the host merges none into a quantised model, nor under ZeRO-3
        return f"The adapter {earlier} is continued whatever the key says: export it into a model and start from that."
    if kind == "oft":
        return "OFT trains a copy of tied embeddings and leaves the head as it was: use finetuning_type: lora."
    return "PEFT cannot train these modules here: use finetuning_type: full, or freeze with freeze_extra_modules."
