"""Settings of LLaMA-Factory with which a training would fail after everything is loaded: refused while it is parsed.

LLaMA-Factory fails in the same way without the ``slm:`` block, so nothing of it is patched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig

from slm_plugin.config import SlmBlock
from slm_plugin.errors import Problem

_ALSO_WITHOUT = "LLaMA-Factory fails in the same way without the block."
_HALF = {"bfloat16", "float16"}
_SAFETENSORS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


def refusals(block: SlmBlock, by_name: Mapping[str, Any], spot: str) -> list[Problem]:
    """Return what would fail after loading.

    Args:
        block: The keys of the ``slm:`` block.
        by_name: The host's parsed argument objects by the name of their class.
        spot: Where the keys stand: the file, or ``arguments``.
    """
    model, training, finetuning = (
        by_name[name] for name in ("ModelArguments", "TrainingArguments", "FinetuningArguments")
    )
    problems = loss_refusals(training, finetuning, spot)
    dtype = base_dtype(model) if training.do_train and not training.deepspeed else None
    if dtype is not None:
        problems += precision_refusals(dtype, block, model, training, finetuning, spot)
    return problems


def loss_refusals(training: Any, finetuning: Any, spot: str) -> list[Problem]:
    """Return why the chosen loss cannot be computed."""
    problems = []
    if finetuning.stage != "sft" or not finetuning.use_asft_loss:
        return []
    if finetuning.finetuning_type == "lora" and finetuning.ref_model is None:
        text = f"needs ref_model with finetuning_type: lora; set ref_model to the base model. {_ALSO_WITHOUT}"
        problems.append(Problem(f"{spot}: use_asft_loss", text))
    evaluates = training.do_eval or str(getattr(training.eval_strategy, "value", training.eval_strategy)) != "no"
    if evaluates and not training.predict_with_generate:
        text = (
            "gives no outputs, so that an evaluation by loss raises a TypeError. Set do_eval: false and"
            f" eval_strategy: no, score the model with slm.probes or slm eval. {_ALSO_WITHOUT}"
        )
        problems.append(Problem(f"{spot}: use_asft_loss", text))
    return problems


def precision_refusals(
    dtype: str, block: SlmBlock, model: Any, training: Any, finetuning: Any, spot: str
) -> list[Problem]:
    """Return why weights of this type cannot be trained with these flags.

    LLaMA-Factory keeps a base in the type of its files and trains float32 copies of what is trained. Matrices of
    two types meet only under autocast, which ``bf16: true`` switches on (and ``fp16: true`` on a GPU).

    Args:
        dtype: Type of the base's weights.
        block: The keys of the ``slm:`` block.
        model: The host's model arguments.
        training: The host's training arguments.
        finetuning: The host's finetuning arguments.
        spot: Where the keys stand.
    """
    if dtype not in _HALF or finetuning.pure_bf16 or model.quantization_bit is not None:
        return []
    on_cpu = training.device.type == "cpu"
    autocast = "bfloat16" if training.bf16 else "float16" if training.fp16 and not on_cpu else None
    whole, rows = _trained_parts(block, model, finetuning)
    if autocast is None and whole:
        given = "fp16: true on a CPU" if training.fp16 else "bf16: false"
        text = (
            f"the base {model.model_name_or_path} is {dtype}, and with {given} its layers cannot read the float32"
            " copies of what is trained. Set bf16: true, or export the base again with infer_dtype: float32."
            f" {_ALSO_WITHOUT}"
        )
        return [Problem(f"{spot}: bf16", text)]
    if autocast is not None and autocast != dtype and rows:
        flag = "bf16" if autocast == "bfloat16" else "fp16"
        text = (
            f"the base {model.model_name_or_path} is {dtype}, whose unit rows cannot be trained alone"
            f" (train_units: rows) with {flag}: true. Set train_units: modules, or export the base again with"
            f" infer_dtype: float32."
        )
        return [Problem(f"{spot}: {flag}", text)]
    return []


def base_dtype(model: Any) -> str | None:
    """Return the type that the base's weights are loaded in, such as ``bfloat16``; None if it is not known yet.

    LLaMA-Factory loads the type that ``config.json`` names; without one, that of the first weights.
    """
    name = str(model.model_name_or_path)
    folder = Path(name)
    try:
        config, _ = PretrainedConfig.get_config_dict(
            name, local_files_only=True, cache_dir=model.cache_dir, revision=model.model_revision
        )
    except OSError:
        # not on this machine yet
        return None
    for part in (config, config.get("text_config") or {}):
        found = part.get("dtype") or part.get("torch_dtype")
        if found:
            return str(found).removeprefix("torch.")
    for path in sorted(folder.glob("*.safetensors"))[:1]:
        try:
            with safe_open(path, "pt") as file:
                types = (file.get_slice(key).get_dtype() for key in file.keys())  # noqa: SIM118  # not a mapping
                return next((_SAFETENSORS[kind] for kind in types if kind in _SAFETENSORS), None)
        except SafetensorError:
            return None
    return None


def _trained_parts(block: SlmBlock, model: Any, finetuning: Any) -> tuple[bool, bool]:
    """Tell whether whole modules of the base are trained as float32 copies, and whether single rows are."""
    if finetuning.finetuning_type == "freeze":
        return True, False
    if finetuning.finetuning_type == "full":
        # everything is trained, so everything is float32
        return False, False
    adapters = model.adapter_name_or_path or []
    if adapters and not finetuning.create_new_adapter:
        path = Path(adapters[-1]) / "adapter_config.json"
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            saved = None
        if isinstance(saved, dict):
            return bool(saved.get("modules_to_save")), bool(saved.get("trainable_token_indices"))
    rows = block.units is not None and block.train_units == "rows"
    whole = bool(finetuning.additional_target) or (block.units is not None and not rows)
    return whole, rows
