"""Every symbol of LLaMA-Factory that this package uses, with the signatures it expects.

Tested with LLaMA-Factory 0.9.5 and 0.9.6.dev0. If another version changes one of them, the message names it and the
patches of that module stay off, so that the host itself keeps working.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib import metadata
from types import ModuleType
from typing import Any

from slm_plugin.errors import HostError

EXPECTED_VERSION = "0.9.5"
"""The released version, for commands that install one."""

TESTED_VERSIONS = (EXPECTED_VERSION, "0.9.6.dev0")
"""Versions that the tests have run with; the second is the development version."""

Parameters = tuple[str, ...] | tuple[tuple[str, ...], ...] | None
"""Names of a function's parameters; several tuples if versions differ; None if only the presence matters."""

GET_DATASET = ("template", "model_args", "data_args", "training_args", "stage", "tokenizer", "processor")

SURFACE: dict[str, dict[str, Parameters]] = {
    "llamafactory.cli": {"main": ()},
    "llamafactory.hparams.data_args": dict.fromkeys(
        (
            "DataArguments.cutoff_len",
            "DataArguments.dataset",
            "DataArguments.dataset_dir",
            "DataArguments.default_system",
            "DataArguments.enable_thinking",
            "DataArguments.eval_dataset",
            "DataArguments.interleave_probs",
            "DataArguments.mask_history",
            "DataArguments.max_samples",
            "DataArguments.mix_strategy",
            "DataArguments.neat_packing",
            "DataArguments.overwrite_cache",
            "DataArguments.packing",
            "DataArguments.preserve_thinking",
            "DataArguments.preprocessing_num_workers",
            "DataArguments.streaming",
            "DataArguments.template",
            "DataArguments.tokenized_path",
            "DataArguments.tool_format",
            "DataArguments.train_on_prompt",
            "DataArguments.val_size",
        )
    ),
    "llamafactory.hparams.finetuning_args": dict.fromkeys(
        (
            "FinetuningArguments.additional_target",
            "FinetuningArguments.create_new_adapter",
            "FinetuningArguments.disable_shuffling",
            "FinetuningArguments.finetuning_type",
            "FinetuningArguments.freeze_extra_modules",
            "FinetuningArguments.lora_target",
            "FinetuningArguments.pissa_init",
            "FinetuningArguments.pure_bf16",
            "FinetuningArguments.ref_model",
            "FinetuningArguments.use_asft_loss",
            "FinetuningArguments.use_badam",
            "FinetuningArguments.stage",
        )
    ),
    "llamafactory.hparams.generating_args": dict.fromkeys(("GeneratingArguments.skip_special_tokens",)),
    "llamafactory.hparams.model_args": dict.fromkeys(
        (
            "ModelArguments.adapter_folder",
            "ModelArguments.adapter_name_or_path",
            "ModelArguments.cache_dir",
            "ModelArguments.export_dir",
            "ModelArguments.export_size",
            "ModelArguments.hf_hub_token",
            "ModelArguments.infer_backend",
            "ModelArguments.infer_dtype",
            "ModelArguments.model_name_or_path",
            "ModelArguments.model_revision",
            "ModelArguments.quantization_bit",
            "ModelArguments.resize_vocab",
            "ModelArguments.trust_remote_code",
            "ModelArguments.use_unsloth",
        )
    ),
    "llamafactory.hparams.parser": {
        "FinetuningArguments": None,
        "_TRAIN_ARGS": None,
        "_INFER_ARGS": None,
        "_EVAL_ARGS": None,
        "read_args": ("args",),
        "get_train_args": ("args",),
        "get_infer_args": ("args",),
    },
    "llamafactory.data.converter": {
        "DatasetConverter": ("dataset_attr", "data_args"),
        "register_dataset_converter": ("name", "dataset_converter"),
        "align_dataset": ("dataset", "dataset_attr", "data_args", "training_args"),
    },
    "llamafactory.data.loader": {
        "get_dataset_list": ("dataset_names", "dataset_dir"),
        "_get_merged_dataset": ("dataset_names", "model_args", "data_args", "training_args", "stage", "return_dict"),
        "_get_dataset_processor": ("data_args", "stage", "template", "tokenizer", "processor", "do_generate"),
        "_get_preprocessed_dataset": (
            "dataset",
            "data_args",
            "training_args",
            "stage",
            "template",
            "tokenizer",
            "processor",
            "is_eval",
        ),
    },
    "llamafactory.data.template": {
        "Llama2Template": None,
        "ReasoningTemplate": None,
        "TEMPLATES": None,
        "Template.add_thought": ("self", "content"),
        "Template.encode_multiturn": ("self", "tokenizer", "messages", "system", "tools", "discarding_history_cot"),
        "get_template_and_fix_tokenizer": ("tokenizer", "data_args"),
    },
    "llamafactory.model.loader": {"patch_tokenizer": ("tokenizer", "model_args")},
    "llamafactory.model.patcher": {
        "resize_embedding_layer": (
            ("model", "tokenizer", "new_special_tokens_config", "init_special_tokens"),  # 0.9.5
            ("model", "tokenizer", "new_tokens", "new_special_tokens_config", "init_special_tokens"),  # 0.9.6.dev0
        ),
    },
    "llamafactory.model.adapter": {
        "LoraConfig": None,
        "init_adapter": ("config", "model", "model_args", "finetuning_args", "is_trainable"),
        "_setup_lora_tuning": (
            "config",
            "model",
            "model_args",
            "finetuning_args",
            "is_trainable",
            "cast_trainable_params_to_fp32",
        ),
    },
    "llamafactory.train.sft.workflow": {
        "CustomSeq2SeqTrainer": None,
        "CustomSeq2SeqTrainer.compute_loss": ("self", "model", "inputs", "args", "kwargs"),
        "CustomSeq2SeqTrainer.save_predictions": ("self", "dataset", "predict_results", "skip_special_tokens"),
        "get_dataset": GET_DATASET,
    },
    "llamafactory.train.pt.workflow": {"CustomTrainer": None, "get_dataset": GET_DATASET},
    "llamafactory.train.rm.workflow": {"PairwiseTrainer": None, "get_dataset": GET_DATASET},
    "llamafactory.train.kto.workflow": {"CustomKTOTrainer": None, "get_dataset": GET_DATASET},
    "llamafactory.train.dpo.workflow": {"get_dataset": GET_DATASET},
    "llamafactory.train.dpo.trainer": {"CustomDPOTrainer": None},
    "llamafactory.train.tuner": {
        "_training_function": ("config",),
        "export_model": ("args",),
    },
    "llamafactory.v1.config.arg_parser": {"get_args": ("args",)},
}
"""Host module -> symbol, or member or field of a class -> :data:`Parameters`."""

_ABSENT = object()


def differences(module: ModuleType) -> list[str]:
    """Compare one host module with :data:`SURFACE`; an empty list means it is as expected."""
    found = []
    for symbol, parameters in SURFACE.get(module.__name__, {}).items():
        value = _find(module, symbol)
        if value is _ABSENT:
            found.append(f"{module.__name__}.{symbol} is missing")
        elif parameters is not None:
            actual = tuple(inspect.signature(value).parameters)
            accepted = _accepted(parameters)
            if actual not in accepted:
                expected = " or ".join(f"({', '.join(names)})" for names in accepted)
                found.append(f"{module.__name__}.{symbol} takes ({', '.join(actual)}), expected {expected}")
    return found


def _accepted(parameters: Parameters) -> list[tuple[str, ...]]:
    """Return the signatures that are accepted, one for each form of a symbol."""
    one = tuple(name for name in parameters or () if isinstance(name, str))
    several = [names for names in parameters or () if not isinstance(names, str)]
    return several or [one]


def _find(module: ModuleType, symbol: str) -> Any:
    """Return what a symbol stands for; a field of a dataclass need not be an attribute of the class."""
    owner, _, member = symbol.rpartition(".")
    holder = getattr(module, owner, None) if owner else module
    return getattr(holder, member, getattr(holder, "__dataclass_fields__", {}).get(member, _ABSENT))


def all_differences() -> list[str]:
    """Import every host module of :data:`SURFACE` and compare; takes as long as the host does to start.

    To be called where the patches are off (``SLM_PLUGIN_DISABLE=1``), because patched symbols are ours.
    """
    found = []
    for name in SURFACE:
        try:
            found.extend(differences(importlib.import_module(name)))
        except Exception as error:
            # whatever keeps the host from starting is what the user must know
            found.append(f"{name} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
    return found


def installed_version() -> str:
    """Return the version of the installed host, ``unknown`` where it has no metadata."""
    try:
        return metadata.version("llamafactory")
    except metadata.PackageNotFoundError:
        return "unknown"


def require() -> None:
    """Refuse to go on with a host whose surface differs, as far as it is loaded.

    Raises:
        HostError: One line that names every difference, or says why a part of this package could not be loaded.
    """
    finder = getattr(sys.modules.get("slm_plugin_autoload"), "HostFinder", None)
    if failures := list(dict.fromkeys(getattr(finder, "failures", ()))):
        raise HostError(f"slm_plugin is not in force in all of LLaMA-Factory: {'; '.join(failures)}.")
    found = [text for name in SURFACE if name in sys.modules for text in differences(sys.modules[name])]
    if found:
        raise HostError(_message(found))


def warn(module: ModuleType) -> None:
    """Say on stderr that the ``slm:`` block cannot be offered on this host."""
    sys.stderr.write(f"slm_plugin is off: {_message(differences(module))}\n")


def _message(found: list[str]) -> str:
    return (
        f"this slm_plugin is written for LLaMA-Factory {' and '.join(TESTED_VERSIONS)},"
        f" installed is {installed_version()}:"
        f" {'; '.join(found)}."
    )
