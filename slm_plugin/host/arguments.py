"""The ``slm:`` key of the host's YAML files and command line."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.config import SlmConfig, UnitsConfig, parse_block
from slm_plugin.errors import ConfigError, DataError, Problem, WeightsError, suggest
from slm_plugin.host import (
    checks,
    compatibility,
    hook_check,
    lora_scale,
    runtime,
    sampling,
    shown_units,
    surface,
    workflows,
)
from slm_plugin.host.overrides import with_named_overrides
from slm_plugin.weights.checkpoint import require_whole
from slm_plugin.weights.staging import make_partial
from slm_plugin.weights.tied import differing_matrices


def patch(parser: Any) -> None:
    """Give the host's finetuning arguments a field ``slm`` and put the block in force after parsing."""
    runtime.show_errors_plainly()
    stock = parser.FinetuningArguments

    @dataclasses.dataclass
    class FinetuningArguments(stock):  # type: ignore[misc, valid-type]  # the host's, as it is here
        """The host's arguments with our block beside them."""

        slm: dict | str | None = dataclasses.field(  # type: ignore[type-arg]  # as the host's parser reads it
            default=None, metadata={"help": "slm_plugin options: a YAML mapping, or JSON on the command line."}
        )

    FinetuningArguments.__qualname__ = stock.__qualname__
    for arguments in (parser._TRAIN_ARGS, parser._INFER_ARGS, parser._EVAL_ARGS):
        arguments[:] = [FinetuningArguments if cls is stock else cls for cls in arguments]
    parser.read_args = hook_check.watch(with_named_overrides(parser.read_args))
    parser.get_train_args = _for_training(_wrap(parser, parser.get_train_args), parser)
    parser.get_infer_args = _wrap(parser, parser.get_infer_args)


def _for_training(parse_args: Any, parser: Any) -> Any:
    @functools.wraps(parse_args)
    def wrapped(args: Any = None) -> Any:
        raw = parser.read_args(args)
        if runtime.block_requested():
            workflows.refuse_other_trainers(raw, _where())
        return parse_args(args)

    return wrapped


def _wrap(parser: Any, parse_args: Any) -> Any:
    @functools.wraps(parse_args)
    def wrapped(args: Any = None) -> Any:
        given = parser.read_args(args)
        parsed = parse_args(given)
        by_name = {type(value).__name__: value for value in parsed}
        finetuning = by_name["FinetuningArguments"]
        runtime.set_host_stage(finetuning.stage)
        if finetuning.slm is None:
            runtime.activate(None)
            return parsed
        surface.require()
        stated = parse_block(finetuning.slm, runtime.registry(), _where())
        config = _with_adapter_units(stated, by_name["ModelArguments"], _where())
        _apply(config, by_name, _where(), promises_units=_promises_units(stated))
        _show_units(by_name, stated=shown_units.is_stated(given))
        return parsed

    return wrapped


def _show_units(by_name: dict[str, Any], stated: bool) -> None:
    """Keep units in the text that the host shows, unless the user says what to do with special tokens."""
    active = runtime.active()
    assert active is not None
    model = by_name["ModelArguments"]
    active.shows_units = not stated and model.export_dir is None
    active.trains = "TrainingArguments" in by_name
    if active.shows_units and not active.trains and active.config.unit_count and model.infer_backend != "huggingface":
        # other engines have tokenizers of their own: there all special tokens are shown
        by_name["GeneratingArguments"].skip_special_tokens = False


def _where() -> str:
    if len(sys.argv) > 1 and Path(sys.argv[1]).suffix in (".yaml", ".yml"):
        return f"{Path(sys.argv[1]).name}: slm"
    return "slm"


def _promises_units(config: SlmConfig) -> bool:
    """Tell whether the block itself says that unit rows train, by ``units`` or by ``train_units``."""
    return config.block.units is not None or "train_units" in config.block.model_fields_set


def _with_adapter_units(config: SlmConfig, model_args: Any, where: str) -> SlmConfig:
    """Take the unit vocabulary from the adapter's card where the block names none, and refuse another one."""
    for folder in model_args.adapter_name_or_path or []:
        units = card.read(Path(folder)).get("units")
        if not units:
            continue
        if config.unit_count == 0:
            # a stage on a base that had its units already does not know how their rows were made
            known = {key: units[key] for key in ("count", "seed", "init") if units.get(key) is not None}
            recorded = UnitsConfig(**known)
            block = config.block.model_copy(update={"units": recorded})
            config = dataclasses.replace(config, block=block, unit_count=units["count"])
        elif config.unit_count != units["count"]:
            text = f"asks for {config.unit_count} units, but the adapter {folder} was trained with {units['count']}."
            raise ConfigError([Problem(f"{where}.units", text)])
    return config


def _apply(config: SlmConfig, by_name: dict[str, Any], where: str, promises_units: bool) -> None:
    active = runtime.activate(config)
    assert active is not None
    active.promises_units = promises_units
    active.model_args = by_name["ModelArguments"]
    active.data_args = data_args = by_name["DataArguments"]
    active.finetuning_args = finetuning = by_name["FinetuningArguments"]
    active.training_args = training = by_name.get("TrainingArguments")
    active.where = where
    problems = _model_problems(active, where) + lora_scale.put_in_force(active, training is not None, where)
    if config.block.train_units == "rows" and training is not None and finetuning.finetuning_type != "lora":
        text = f"rows needs finetuning_type: lora, got {finetuning.finetuning_type}. Use modules, or train by LoRA."
        problems.append(Problem(f"{where}.train_units", text))
    if promises_units and training is not None and finetuning.use_badam:
        text = "BAdam never updates embeddings, so unit rows would keep their start values. Set use_badam: false."
        problems.append(Problem(f"{where}.train_units", text))
    if config.block.mitigations and training is not None and finetuning.stage != "sft":
        text = f"act on the host's stage: sft only, got stage: {finetuning.stage}."
        problems.append(Problem(f"{where}.mitigations", text))
    if config.probes is not None and training is not None:
        problems += checks.probe_refusals(training, finetuning, f"{where}.probes")
    if training is not None:
        active.seed = training.seed
        active.output_dir = Path(training.output_dir)
        active.process_index = training.process_index
        active.n_processes = training.world_size
        active.keeps_order = sampling.keeps_order(training, finetuning)
        problems += compatibility.refusals(config.block, by_name, _spot(where))
        problems += workflows.refusals(active.model_args, data_args, finetuning, config.unit_count > 0, where)
        problems += _missing_sources(active, data_args, where) + checks.refusals(active, by_name, where)
    if problems:
        raise ConfigError(problems)
    if runtime.sweep_position() is not None and active.model_args.export_dir is not None:
        destination = Path(active.model_args.export_dir)
        active.staged_export = make_partial(destination), destination
        active.model_args.export_dir = str(active.staged_export[0])


def _spot(where: str) -> str:
    """Return where keys beside the block stand: the file, or ``arguments``."""
    return where.removesuffix("slm").removesuffix(": ") or "arguments"


def _model_problems(active: runtime.Active, where: str) -> list[Problem]:
    """Tell of a local model whose files are not all there, before the host reads the first of them."""
    folder = Path(str(active.model_args.model_name_or_path))
    spot = f"{_spot(where)}: model_name_or_path"
    try:
        require_whole(folder)
        has_weights = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
        differing = differing_matrices(folder) if has_weights else None
    except WeightsError as error:
        return [Problem(spot, str(error))]
    if differing is None:
        return []
    text = (
        f"{folder} holds two different matrices, {' and '.join(differing)}, under tie_word_embeddings: true, which"
        " programs read differently. Set tie_word_embeddings: false in its config.json."
    )
    return [Problem(spot, text)]


def _missing_sources(active: runtime.Active, data_args: Any, where: str) -> list[Problem]:
    """Check every replay source against ``dataset_info.json`` before anything is loaded."""
    draws = [draw for part in active.hooks.hook.slm_mix_samples(run=active.run) for draw in part or ()]
    names = _registered_data_sets(data_args) if draws else None
    if names is None:
        return []
    file = Path(data_args.dataset_dir if isinstance(data_args.dataset_dir, str) else "") / "dataset_info.json"
    return [
        Problem(
            f"{where}.mitigations",
            f"the source {draw.dataset!r} is not in {file}. {suggest(draw.dataset, names)}",
        )
        for draw in draws
        if draw.dataset not in names
    ]


def _registered_data_sets(data_args: Any) -> list[str] | None:
    """Return the names in ``dataset_info.json``; None where the host will read it from elsewhere."""
    import json

    folder = data_args.dataset_dir
    if isinstance(folder, dict):
        return list(folder)
    if folder == "ONLINE" or str(folder).startswith("REMOTE:"):
        return None
    path = Path(folder) / "dataset_info.json"
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); set dataset_dir to its folder.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
