"""The ``slm.merge`` block: which models are merged, by which method, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_plugin.plugins import Registry


@dataclass(frozen=True)
class Member:
    """One model of a merge.

    Attributes:
        model: Folder of a full model or of a LoRA adapter.
        options: What the method takes for each model, such as ``weight`` and ``density``; a ``MemberOptions``
            of the method.
    """

    model: Path
    options: Any


@dataclass(frozen=True)
class MergePlan:
    """A parsed ``slm.merge`` block.

    Attributes:
        method_name: Registered name of the method.
        method: The method, made with its merge-wide options.
        base_model: Model that differences are taken from, and that adapters belong to; None where not named.
        members: The models, in the order written.
        dtype: Type of the result, such as ``bfloat16``; None keeps the first member's.
        seed: Seed of methods that draw.
    """

    method_name: str
    method: Any
    base_model: Path | None
    members: tuple[Member, ...]
    dtype: str | None
    seed: int


def parse_merge(raw: Mapping[str, Any], registry: Registry, where: str) -> MergePlan:
    """Parse a ``slm.merge`` block.

    Raises:
        ConfigError: Lists every problem of the block, its models and their options.
    """
    raise NotImplementedError
