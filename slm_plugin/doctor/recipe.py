"""Read a train YAML as far as it decides size, work and disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slm_plugin.config import SlmConfig, parse_block
from slm_plugin.doctor.estimate import ALL_TARGETS, Needs, Training, needs
from slm_plugin.doctor.shapes import find_shapes
from slm_plugin.doctor.tokens import Tokens, all_tokens
from slm_plugin.errors import ConfigError, DataError, Problem, suggest
from slm_plugin.plugins import Registry


@dataclass(frozen=True)
class Recipe:
    """A train YAML and what it needs.

    Attributes:
        name: The file's name.
        training: What decides size and work.
        needs: What it needs.
        tokens: Tokens of the whole training.
        kept: Checkpoints that stay on disk.
    """

    name: str
    training: Training
    needs: Needs
    tokens: Tokens
    kept: int

    @property
    def disk(self) -> float:
        """Bytes that the training leaves on disk at most: its checkpoints, and the adapter or model."""
        result = 4.0 * self.needs.trained if self.training.finetuning == "lora" else self.needs.model
        return self.kept * self.needs.checkpoint + result


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        DataError: It cannot be read or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path} must hold keys and values.")
    return content


def read_recipe(
    path: Path,
    registry: Registry,
    model: str | None = None,
    processes: int = 1,
    tokens: float | None = None,
    cpu: bool = False,
) -> Recipe:
    """Read a train YAML.

    Args:
        path: The file.
        registry: For the ``slm:`` block.
        model: The model that ``model_name_or_path`` will be made from, where that is not there yet.
        processes: Processes that train together, one per GPU.
        tokens: Tokens of one epoch, where the data does not say.
        cpu: Whether it trains on a CPU, if it can: without DeepSpeed, quantised weights and several processes.

    Raises:
        ConfigError: The block or a key is wrong.
        WeightsError: The model's shape is not known.
    """
    raw = read_yaml(path)
    config = parse_block(raw["slm"], registry, path.name) if raw.get("slm") else None
    units = config.unit_count if config else 0
    wanted = model or raw.get("model_name_or_path")
    if not wanted:
        raise ConfigError([Problem(f"{path.name}: model_name_or_path", "is required.")])
    finetuning = str(raw.get("finetuning_type", "lora"))
    if finetuning not in ("lora", "full"):
        raise ConfigError(
            [Problem(f"{path.name}: finetuning_type", f"{finetuning!r} cannot be estimated; lora, full.")]
        )
    half = bool(raw.get("bf16") or raw.get("fp16"))
    zero = _zero(raw, path)
    training = Training(
        shapes=find_shapes(str(wanted), path, units),
        finetuning=finetuning,
        rank=int(raw.get("lora_rank", 8)),
        targets=_targets(raw, path),
        embeddings=_embeddings(raw, config),
        units=units,
        batch=int(raw.get("per_device_train_batch_size", 8)),
        accumulation=int(raw.get("gradient_accumulation_steps", 1)),
        cutoff=int(raw.get("cutoff_len", 2048)),
        processes=processes,
        zero=zero,
        base_bytes=float(raw["quantization_bit"]) / 8 if raw.get("quantization_bit") else (2.0 if half else 4.0),
        autocast=half,
        checkpointing=not raw.get("disable_gradient_checkpointing", False),
        anchored=any("l2_anchor" in item for item in (config.block.mitigations if config else [])),
        cpu=cpu and not zero and not raw.get("quantization_bit") and processes == 1,
    )
    kept = 0 if str(raw.get("save_strategy", "steps")) == "no" else int(raw.get("save_total_limit") or 1)
    found = all_tokens(raw, training, config, registry, tokens)
    return Recipe(path.name, training, needs(training), found, kept)


def _targets(raw: Mapping[str, Any], path: Path) -> Sequence[str]:
    given = raw.get("lora_target", "all")
    names = [str(name).strip() for name in (given if isinstance(given, list) else str(given).split(","))]
    if names == ["all"]:
        return ALL_TARGETS
    unknown = [name for name in names if name not in ALL_TARGETS]
    if unknown:
        text = f"{unknown[0]!r} cannot be estimated. {suggest(unknown[0], ALL_TARGETS, 'Known')}"
        raise ConfigError([Problem(f"{path.name}: lora_target", text)])
    return names


def _embeddings(raw: Mapping[str, Any], config: SlmConfig | None) -> str:
    if config is not None and config.block.stage is not None and config.block.units is not None:
        return config.block.train_units
    return "modules" if "embed_tokens" in str(raw.get("additional_target", "")) else "none"


def _zero(raw: Mapping[str, Any], path: Path) -> int:
    given = raw.get("deepspeed")
    if not given:
        return 0
    where = Path(given) if Path(given).is_file() else path.parent / Path(given).name
    try:
        stage = json.loads(where.read_text(encoding="utf-8"))["zero_optimization"]["stage"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([Problem(f"{path.name}: deepspeed", f"{given} names no ZeRO stage ({error}).")]) from None
    return int(stage)
