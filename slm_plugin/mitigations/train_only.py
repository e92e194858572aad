"""Train parts of the model only: embeddings, attention, or any other choice of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.hookspecs import hookimpl
from slm_plugin.strict import Strict
from slm_plugin.training.model_parts import parts

Part = Literal["embeddings", "attention", "feed_forward", "others"]


class TrainOnly:
    """Freezes whatever belongs to none of the named parts; it never sets free what the host froze.

    Args:
        options: The parts that train.
    """

    class Options(Strict):
        """Options of ``train_only``."""

        parts: list[Part] = Field(min_length=1)
        """What trains, weights or their adapters: ``embeddings`` (input embeddings and head),
        ``attention`` (its projections), ``feed_forward`` (the rest of a layer), ``others`` (normalisation,
        towers). All four leave training bit-identical."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @hookimpl
    def slm_check(self, arguments: Mapping[str, Any]) -> list[str]:
        """Refuse ZeRO-3 with an adapter, of which the host then saves only what trains."""
        deepspeed = arguments.get("hf_deepspeed_config")
        if deepspeed is None or not deepspeed.is_zero3() or arguments.get("finetuning_type", "lora") != "lora":
            return []
        if set(self.options.parts) == set(get_args(Part)):
            return []
        return [
            "train_only does not work with ZeRO-3 and an adapter, whose frozen parts would not be saved. Use ZeRO-2."
        ]

    @hookimpl
    def slm_stage_start(self, model: Any) -> None:
        """Freeze the other parts.

        Raises:
            ConfigError: Nothing is left to train.
        """
        found = parts(model)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        belongs = {name: "embeddings" if found[name] == "head" else found[name] for name in trained}
        kept = [name for name in trained if belongs[name] in self.options.parts]
        if not kept:
            text = (
                f"train_only keeps {', '.join(self.options.parts)}, but this run trains only"
                f" {', '.join(sorted(set(belongs.values()))) or 'nothing'}: nothing is left to train."
                " Name another part, or let the host train it (lora_target, additional_target, slm.units)."
            )
            raise ConfigError([Problem("slm.mitigations", text)])
        for name in set(trained) - set(kept):
            trained[name].requires_grad_(False)


@hookimpl
def slm_register_mitigations(register: Callable[[str, type], None]) -> None:
    """Offer ``train_only``."""
    register("train_only", TrainOnly)
