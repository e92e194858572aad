"""The check that exactly the rows train that ``slm.train_units`` promises, in embeddings and in head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime
from slm_plugin.training.vocabulary_matrices import height, own_matrices, trained_rows, vocabulary_modules


def continues(model_args: Any, finetuning_args: Any) -> bool:
    """Tell whether a run goes on with an adapter as it was made."""
    return bool(model_args.adapter_name_or_path) and not finetuning_args.create_new_adapter


def naming(targets: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Return the targets of a key of the host that name one of the modules with these paths."""
    known = list(paths)
    return [target for target in targets if any(path == target or path.endswith(f".{target}") for path in known)]


def require_trained_units(
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
        # with units in the block the tokenizer was reached past our patch, which hook_check reports
        if active.promises_units and not active.config.unit_count:
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
    if continues(model_args, finetuning_args):
        other = "modules" if rows_only else "rows"
        same = all(rows == units for rows in wrong.values()) if not rows_only else all(wrong.values())
        hint = f"; set train_units: {other} to go on as that adapter was trained" if same else ""
        return (
            f"The adapter {earlier} is continued as it was made. Set create_new_adapter: true to merge it into the"
            f" model and train a new one{hint}."
        )
    if stated and not rows_only:
        named = naming(stated, own)
        rest = [target for target in stated if target not in named]
        return f"Set additional_target: {','.join([*names, *rest])}, or leave it out."
    if earlier is not None:
        # the host merges none into a quantised model, nor under ZeRO-3
        return f"The adapter {earlier} is continued whatever the key says: export it into a model and start from that."
    if kind == "oft":
        return "OFT trains a copy of tied embeddings and leaves the head as it was: use finetuning_type: lora."
    return f"PEFT cannot train them here: set train_units: {'modules' if rows_only else 'rows'}."
