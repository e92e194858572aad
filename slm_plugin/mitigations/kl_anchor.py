"""KL anchor: keep the answers close to those of the model before the stage.

The loss gains ``strength * T^2 * mean_n KL(softmax(t_n / T) || softmax(z_n / T))`` over the answer tokens n, with
``t`` the logits of the model as it was and ``z`` those of the model in training.

Source: Hinton et al. 2015, arXiv 1503.02531, section 2 (temperature); Li and Hoiem 2016, arXiv 1606.09282
(the old model as the teacher).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from slm_plugin.adapters.lora import CONFIG_FILE, changes_base, load_config
from slm_plugin.data.sourced import SOURCE_COLUMN
from slm_plugin.errors import ConfigError, Problem
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import PoolDraw, StageRun
from slm_plugin.strict import Strict
from slm_plugin.training import stage_start
from slm_plugin.training.distillation import summed_kl
from slm_plugin.training.teacher import is_partitioned, teacher_logits

_BY_ROW = {"input_ids", "attention_mask", "position_ids", "token_type_ids"}


class KlAnchor:
    """Adds ``strength * T^2 * KL(teacher || student)`` to the loss of every chosen answer token.

    Args:
        options: Strength, temperature, teacher and rows.
    """

    class Options(Strict):
        """Options of ``kl_anchor``."""

        strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
        """Weight of the divergence beside the cross-entropy, per answer token; 0 leaves training
        bit-identical and runs no teacher."""

        temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
        """T, by which both models' logits are divided; the term is multiplied by T^2, so its gradient keeps
        its size."""

        teacher: Literal["stage_start", "base"] = "stage_start"
        """The model to stay close to: ``stage_start`` as it was when this stage began; ``base`` without the
        adapter and without what it trained in full (LoRA only). Under ``pissa_init`` the base is the model that
        a new adapter starts from."""

        rows: Literal["all", "replayed", "current"] = "all"
        """On which rows: ``all``, those ``replayed`` from earlier tasks, or those of the ``current`` stage. The
        tokens of other rows add 0 to the mean."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.wants_sources = options.strength > 0 and options.rows != "all"
        self._start: dict[str, torch.Tensor] | None = None
        self._starts_from_base = False

    @hookimpl
    def slm_check(self, arguments: Mapping[str, Any], draws: Sequence[PoolDraw]) -> list[str]:
        """Refuse a teacher or rows that this run does not have."""
        if not self.options.strength:
            return []
        problems = []
        if self.options.rows == "replayed" and not any(draw.ratio > 0 for draw in draws):
            problems.append(
                "kl_anchor has rows: replayed, but nothing is replayed. Add replay to the mitigations, or use"
                " rows: all."
            )
        if self.options.teacher == "base" and arguments.get("finetuning_type", "lora") != "lora":
            problems.append(
                "kl_anchor has teacher: base, which is the model without its adapter, but finetuning_type is"
                f" {arguments['finetuning_type']}. Use teacher: stage_start."
            )
        elif self.options.teacher == "base":
            adapters = arguments.get("adapter_name_or_path") or []
            is_new = not adapters or bool(arguments.get("create_new_adapter"))
            # PiSSA takes the adapter's start out of the base's weights: only with that start are they the base's
            self._starts_from_base = is_new and bool(arguments.get("pissa_init"))
            # an adapter on a hub is looked at when it is loaded
            if not is_new and (Path(adapters[-1]) / CONFIG_FILE).is_file():
                init = load_config(Path(adapters[-1])).get("init_lora_weights")
                if changes_base(init):
                    problems.append(_moved_base(f"the adapter {adapters[-1]}", init))
        deepspeed = arguments.get("hf_deepspeed_config")
        if self.options.teacher == "stage_start" and deepspeed is not None and deepspeed.is_zero3():
            problems.append(
                "kl_anchor has teacher: stage_start, whose weights cannot be put in place where ZeRO-3 partitions"
                " the model. Use ZeRO-2, or teacher: base."
            )
        problems += [
            f"kl_anchor does not work with {key}: true, which keeps no logits."
            for key in ("enable_liger_kernel", "use_unsloth")
            if arguments.get(key)
        ]
        return problems

    @hookimpl
    def slm_stage_start(self, model: Any) -> None:
        """Refuse a base that the adapter's initialisation has changed, wherever the adapter is from.

        Raises:
            ConfigError: Names the initialisation.
        """
        if not self.options.strength or self.options.teacher != "base" or self._starts_from_base:
            return
        for adapter in getattr(model, "peft_config", {}).values():
            if changes_base(getattr(adapter, "init_lora_weights", True)):
                raise ConfigError([Problem("slm.mitigations", _moved_base("the adapter", adapter.init_lora_weights))])

    @hookimpl
    def slm_extra_loss(
        self, run: StageRun, model: Any, inputs: Mapping[str, Any], outputs: Any, weight: float | torch.Tensor
    ) -> torch.Tensor | None:
        """Return ``strength * T^2 * sum of KL over the chosen answer tokens / answer tokens``, times ``weight``."""
        if not self.options.strength:
            return None
        labels, sources = inputs["labels"], inputs.get(SOURCE_COLUMN)
        chosen_B = self._chosen(labels, sources)
        partitioned = is_partitioned(model)
        # before the first step, even where its rows are not chosen
        start = self._teacher_weights(run, model, partitioned)
        if not partitioned and not bool(chosen_B.any()):
            return None
        rows_B = torch.ones_like(chosen_B)
        # every process must take part in the forwards of partitioned parameters, so there all rows go through
        if not partitioned and all(key in _BY_ROW | {"labels", SOURCE_COLUMN} for key in inputs):
            rows_B = chosen_B
        taken = {
            key: value[rows_B] if key in _BY_ROW and not bool(rows_B.all()) else value
            for key, value in inputs.items()
            if key not in ("labels", SOURCE_COLUMN)
        }
        teacher = teacher_logits(model, taken, start)
        answered = labels[:, 1:].ne(-100) & chosen_B[:, None]
        student_NV = outputs.logits[:, :-1][answered]
        teacher_NV = teacher[:, :-1][answered[rows_B]]
        temperature = self.options.temperature
        summed = summed_kl(student_NV, teacher_NV, temperature)
        mean = summed / labels.ne(-100).sum().clamp(min=1)
        return self.options.strength * temperature**2 * mean * weight

    @hookimpl
    def slm_stage_end(self, run: StageRun) -> None:
        """Let go of the teacher."""
        self._start = None
        if self.options.strength and not self._drops_adapter:
            stage_start.forget(run)

    @property
    def _drops_adapter(self) -> bool:
        """Whether the teacher is the model with its adapter off."""
        return self.options.teacher == "base" and not self._starts_from_base

    def _chosen(self, labels: torch.Tensor, sources: torch.Tensor | None) -> torch.Tensor:
        """Return which rows of the batch count."""
        answered_B = labels[:, 1:].ne(-100).any(dim=1)
        if self.options.rows == "all":
            return answered_B
        assert sources is not None, f"rows: {self.options.rows} without {SOURCE_COLUMN} in the batch"
        replayed_B = sources.to(labels.device) > 0
        return answered_B & (replayed_B if self.options.rows == "replayed" else ~replayed_B)

    def _teacher_weights(self, run: StageRun, model: Any, partitioned: bool) -> dict[str, torch.Tensor] | None:
        if self._drops_adapter:
            return None
        if self._start is None:
            assert not partitioned
            trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self._start = stage_start.at_start(run, trained)
        return self._start


def _moved_base(adapter: str, init: Any) -> str:
    return (
        f"kl_anchor has teacher: base, but {adapter} was initialised by init_lora_weights: {init}, which takes the"
        " adapter's start out of the base's weights. Use teacher: stage_start."
    )


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``kl_anchor``."""
    register("kl_anchor", KlAnchor)
