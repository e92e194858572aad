"""What ``replica.py`` trains and changes: the paper's methods, its upper bound and its open questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiny_methods import ENDS, UNITS_ONLY, End, Path, always, both, replay

SEEDED = ("sequential", "replay 5 %", "joint training")
"""Ways that are trained with every seed; the others with the first."""

ENDED = ("sequential", "replay 5 %", "replay 20 %", "replay 5 % + L2 1e-3")
"""Ways whose last models are discounted and merged."""

JOINT_STEPS = 2000
_L2 = always({"l2_anchor": {"strength": 1e-3}})
_TTS_FIRST = ("tts", "asr", "sqa")

SEQUENTIAL = Path("sequential", always())
REPLAY = Path("replay 5 %", replay(0.05))

JOINT = Path(
    "joint training",
    lambda stage: [{"replay": {"sources": {"tiny_asr": 1.2, "tiny_sqa": 0.5, "tiny_text": 1.0}, "resample": "epoch"}}],
    stages=("tts",),
    changes={"tts": {"max_steps": JOINT_STEPS, "warmup_steps": JOINT_STEPS // 10}},
    row="joint",
)
"""All tasks at once, as the upper bound: a run on ``tiny_tts`` with the others mixed in. In its 2,000 steps of 32 rows
each stage's data take the share they have in the sequence (650 : 550 : 260 steps), and text as much as TTS."""

METHODS = (
    SEQUENTIAL,
    REPLAY,
    Path("replay 20 %", replay(0.2)),
    JOINT,
    Path("L2 1e-3", _L2),
    Path("LLRD .9", always({"llrd": {"alpha": 0.9}})),
    Path("replay 5 % + L2 1e-3", both(replay(0.05), _L2)),
    Path("replay 5 % + L2 1e-3 + LLRD .9", both(replay(0.05), _L2, always({"llrd": {"alpha": 0.9}}))),
)

QUESTIONS = (
    Path("order TTS, ASR, SQA", always(), _TTS_FIRST),
    Path("order TTS, ASR, SQA with replay 5 %", replay(0.05, _TTS_FIRST), _TTS_FIRST),
    Path("TTS of units only, with replay 5 %", replay(0.05), data={"tts": UNITS_ONLY, "sqa": UNITS_ONLY}),
)
"""One seed each; the third speaks without interleaving: the TTS data hold no words among the units."""

ANSWERS_ONLY = Path("SQA alone", always(), ("sqa",))
"""The third of the experts; the others are first stages of ways above."""

EXPERTS: Mapping[str, float] = {"experts": 0.0, "experts with base": 1.0, "experts with base x4": 4.0}
"""Averages of three experts by the weight of the base among them. Source: arXiv 2305.09681."""


def _milder(share: float) -> End:
    """Return a linear merge in which the last stage has this share and the two before it the rest."""
    rest = round((1 - share) / 2, 3)
    models: list[dict[str, Any]] = [
        {"model": f"{{path}}/{stage}", "weight": weight}
        for stage, weight in (("sqa", share), ("tts", rest), ("asr", rest))
    ]
    block = {"merge": {"method": "linear", "base_model": "{base}", "models": models}}
    return End(f"linear {share:g}".replace("0.", "."), block, uses_adapter=False)


REPLICA_ENDS = tuple(end for end in ENDS if "embeddings" not in end.name)
"""Discounts, and the paper's merges at the paper's weights."""

MERGED = REPLAY.name
WEAKER = (_milder(0.7), _milder(0.5))
"""Merges of the 5 % replay that give the last stage less than the paper's .90: where do answers aloud go?"""
