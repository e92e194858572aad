"""The methods that ``mitigations.py`` and ``replica.py`` compare on the tiny world, each a few lines of YAML.

A *path* trains ASR, TTS and SQA with its own ``slm:`` block. An *end* changes the last adapters of a path
without training: a discount, or a merge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STAGES = ("asr", "tts", "sqa")
OWN_TEXT, UNITS_ONLY = "own_text", "units_only"
"""Data folders that are made: text that the base wrote itself, and speech without words among its units."""

Mitigations = Callable[[str], list[dict[str, Any]]]


@dataclass(frozen=True)
class Path:
    """A way of training all three stages.

    Attributes:
        name: Row of the table.
        mitigations: ``slm.mitigations`` of a stage.
        stages: Which stages it has, in order.
        data: Which made data folder a stage trains on, by stage; the tiny world's own unless named.
        changes: Keys of the host's YAML that a stage changes, by stage.
        row: What the row of the last stage is called in matrices; the stage unless set.
    """

    name: str
    mitigations: Mitigations
    stages: tuple[str, ...] = STAGES
    data: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    row: str = ""


@dataclass(frozen=True)
class End:
    """A change of a path's last model.

    Attributes:
        name: Row of the table, behind the path's.
        block: Keys of the export's ``slm:`` block; ``{path}`` stands for the path's folder, ``{base}`` for the
            units base.
        uses_adapter: Whether the export names the last adapter itself.
    """

    name: str
    block: dict[str, Any]
    uses_adapter: bool = field(default=True)


def earlier(stage: str, order: Sequence[str] = STAGES) -> tuple[str, ...]:
    """Return the tasks before a stage: what there is to replay."""
    return ("text", *order[: order.index(stage)])


def replay(ratio: float, order: Sequence[str] = STAGES, **options: Any) -> Mitigations:
    """Replay a share of every earlier task."""
    return lambda stage: [{"replay": {"sources": {f"tiny_{t}": ratio for t in earlier(stage, order)}, **options}}]


def always(*mitigations: dict[str, Any]) -> Mitigations:
    """Use the same mitigations in every stage."""
    return lambda stage: list(mitigations)


def both(*parts: Mitigations) -> Mitigations:
    """Use several at once."""
    return lambda stage: [entry for part in parts for entry in part(stage)]


def synthesised(ratio: float) -> Mitigations:
    """Replay text that the base wrote itself in place of the text it was trained on."""
    names = {"text": "tiny_own_text", "asr": "tiny_asr", "tts": "tiny_tts"}
    return lambda stage: [{"replay": {"sources": {names[task]: ratio for task in earlier(stage)}}}]


PATHS = (
    Path("sequential", always()),
    Path("replay 5 %", replay(0.05)),
    Path("replay 20 %", replay(0.2)),
    Path("replay 5 %, surprise", replay(0.05, pick="surprise")),
    Path("replay 5 %, falling", replay(0.05, schedule={"shape": "linear", "start": 1.8, "end": 0.2})),
    Path("replay 5 %, rising", replay(0.05, schedule={"shape": "linear", "start": 0.2, "end": 1.8})),
    Path("replay 5 %, own text", synthesised(0.05), data=dict.fromkeys(STAGES, OWN_TEXT)),
    Path("L2 1e-3", always({"l2_anchor": {"strength": 1e-3}})),
    Path("L2 1e-2", always({"l2_anchor": {"strength": 1e-2}})),
    Path("LLRD .9", always({"llrd": {"alpha": 0.9}})),
    Path("LLRD .5", always({"llrd": {"alpha": 0.5}})),
    Path("KL to stage start", always({"kl_anchor": {"strength": 1.0}})),
    Path("KL on replay 5 %", both(replay(0.05), always({"kl_anchor": {"strength": 1.0, "rows": "replayed"}}))),
    Path("embeddings only", always({"train_only": {"parts": ["embeddings"]}})),
    Path("attention only", always({"train_only": {"parts": ["attention"]}})),
    Path("replay 5 % + L2 1e-3", both(replay(0.05), always({"l2_anchor": {"strength": 1e-3}}))),
)

_PAPER = {"sqa": 0.9, "tts": 0.06, "asr": 0.04}


def _merge(method: str, weights: dict[str, float], density: float | None = None) -> dict[str, Any]:
    more = {} if density is None else {"density": density}
    models = [{"model": f"{{path}}/{stage}", "weight": weight, **more} for stage, weight in weights.items()]
    if method == "linear":
        models.append({"model": "{base}", "weight": 0.02})
    return {"merge": {"method": method, "base_model": "{base}", "models": models}}


ENDS = (
    End("discount .9", {"lora_scale": 0.9}),
    End("discount .7", {"lora_scale": 0.7}),
    End("discount .7, embeddings too", {"lora_scale": 0.7, "scaled_modules": "interpolate"}),
    End("linear", _merge("linear", {"sqa": 0.9, "tts": 0.05, "asr": 0.03}), uses_adapter=False),
    End("TIES", _merge("ties", _PAPER, 0.9), uses_adapter=False),
    End("DARE-TIES", _merge("dare_ties", _PAPER, 0.91), uses_adapter=False),
)
"""Weights and densities of the merges are the paper's. Source: arXiv 2505.17496."""

ENDED = ("sequential", "replay 20 %")
"""Paths that every end is tried on."""

EXPERTS = "experts"
"""Three experts from the units base, averaged with it; twice."""
