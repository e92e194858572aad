"""What trainings logged: loss and every other number over steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slm_plugin.report.content import Curve, Training
from slm_plugin.report.folder import read_object

LOG = "trainer_log.jsonl"
STATE = "trainer_state.json"
DEPTH = 3
"""How deep below the run's folder trainings are looked for."""

_NOT_SHOWN = ("current_steps", "total_steps", "step", "epoch", "percentage", "lr", "learning_rate", "grad_norm")
_COSTS = ("_runtime", "_per_second", "_time", "total_flos", "train_loss", "throughput", "total_tokens")


def trainings(folder: Path, order: Mapping[Path, int]) -> list[Training]:
    """Return the trainings below a folder that left a log, in the order of the pipeline, then of time.

    Args:
        folder: The run's folder.
        order: Position in the pipeline of the folders that its steps wrote.
    """
    logs = [log for log in _below(folder, DEPTH) if (log / LOG).is_file()]
    logs += [path for path in order if (path / LOG).is_file() and path not in logs]
    logs.sort(key=lambda log: (order.get(log, len(order)), (log / LOG).stat().st_mtime))
    found = []
    for log in logs:
        curves, total = read_curves(log)
        if curves:
            name = str(log.relative_to(folder)) if log.is_relative_to(folder) else str(log)
            found.append(Training(name, curves, total))
    return found


def read_curves(folder: Path) -> tuple[list[Curve], int | None]:
    """Return the curves of one training and how many steps it was to take.

    The host's ``trainer_log.jsonl`` keeps a fixed set of numbers; what else was logged, such as scores of
    probes during training, is taken from ``trainer_state.json``. A line that was cut off is passed over.
    """
    found: dict[str, dict[int, float]] = {}
    total = None
    for line in _lines(folder / LOG):
        total = line.get("total_steps", total)
        _add(found, line, line.get("current_steps"))
    logged = set(found)
    history = read_object(folder / STATE).get("log_history", [])
    for line in history if isinstance(history, list) else []:
        _add(found, {key: value for key, value in line.items() if key not in logged}, line.get("step"))
    names = sorted(found, key=lambda name: (name != "loss", name))
    curves = [Curve(name, list(found[name]), list(found[name].values())) for name in names]
    return curves, total if isinstance(total, int) else None


def _add(found: dict[str, dict[int, float]], line: Mapping[str, Any], step: Any) -> None:
    if not isinstance(step, int):
        return
    for name, value in line.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if is_number and name not in _NOT_SHOWN and not name.endswith(_COSTS):
            found.setdefault(name, {})[step] = float(value)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "checkpoint-")):
            yield path
            yield from _below(path, depth - 1)
