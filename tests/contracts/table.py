"""The one table of what every mitigation is tested with; a new mitigation gets its lines here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """How a mitigation is tested.

    Attributes:
        neutral: Options that must leave training bit-identical.
        active: Options that must change it, by a name for each choice.
    """

    neutral: dict[str, Any]
    active: dict[str, dict[str, Any]] = field(default_factory=dict)


TABLE: dict[str, Entry] = {
    "replay": Entry(
        {"sources": {"llm": 0.0}, "resample": "epoch"},
        {
            "once": {"sources": {"llm": 0.2}},
            "epoch": {"sources": {"llm": 0.2, "sqa": 0.1}, "resample": "epoch"},
            "surprise": {"sources": {"llm": 0.2}, "pick": "surprise", "candidates": 2},
            "schedule": {"sources": {"llm": 1.0}, "schedule": {"shape": "linear", "start": 0.5, "end": 2.0}},
        },
    ),
    "l2_anchor": Entry({"strength": 0.0}, {"on": {"strength": 0.05}}),
    "llrd": Entry({"alpha": 1.0}, {"on": {"alpha": 0.8}}),
    "kl_anchor": Entry(
        {"strength": 0.0, "rows": "replayed"},
        {
            "start": {"strength": 0.5, "rows": "current"},
            "base": {"strength": 0.5, "teacher": "base", "temperature": 2.0},
        },
    ),
    "train_only": Entry(
        {"parts": ["embeddings", "attention", "feed_forward", "others"]}, {"on": {"parts": ["embeddings"]}}
    ),
}


def block(choices: dict[str, str | None], train_units: str) -> dict[str, Any]:
    """Return an ``slm:`` block.

    Args:
        choices: By mitigation, the name of a choice in its ``active``, ``neutral``, or None to leave it out.
        train_units: The key of that name.
    """
    mitigations = [
        {name: TABLE[name].neutral if choice == "neutral" else TABLE[name].active[choice]}
        for name, choice in choices.items()
        if choice is not None
    ]
    units: dict[str, Any] = {"stage": "tts", "units": {"count": 50}, "train_units": train_units}
    return units | ({"mitigations": mitigations} if mitigations else {})
