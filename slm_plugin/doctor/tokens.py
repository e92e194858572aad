"""How many tokens a training processes, from what is known about its data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from slm_plugin.config import SlmConfig
from slm_plugin.doctor.estimate import Training
from slm_plugin.errors import SlmError
from slm_plugin.plugins import Registry
from slm_plugin.records import Sample
from slm_plugin.vocabulary import strip_units, text_to_units

TOKENS_PER_WORD = 1.3
"""Tokens of text per word; assumed."""

PUBLISHED_TOKENS = {"chiyuanhsiao/ls960_interleaves": 960 * 3600 * 50 * 1.1}
"""Tokens of published sets: 960 hours at 50 units a second, a tenth more for text and chat form (assumed)."""

COUNTED_ROWS = 200
"""Rows of a file of JSON lines that are counted; the others are taken to be as long."""


@dataclass(frozen=True)
class SetSize:
    """The size of a data set.

    Attributes:
        tokens: Tokens of all rows.
        rows: Rows; None if only the tokens are known.
        source: Where the numbers are from, in words.
    """

    tokens: float
    rows: float | None
    source: str


@dataclass(frozen=True)
class Tokens:
    """Tokens of a whole training.

    Attributes:
        total: The number; None if nothing is known about the data.
        source: Its origin, as text for the user.
    """

    total: float | None
    source: str


def all_tokens(
    raw: Mapping[str, Any], training: Training, config: SlmConfig | None, registry: Registry, given: float | None
) -> Tokens:
    """Return the tokens of a training, replayed rows included.

    With ``max_steps`` they are ``steps * rows of a step * mean tokens of a row``, else ``epochs * (tokens of an epoch
    + ratio * rows * mean tokens of a replayed row)`` summed over the replay pools. No row counts for more than
    ``cutoff_len``.

    Args:
        raw: The train YAML.
        training: What it says about batches.
        config: Its ``slm:`` block.
        registry: For the form of rows that are counted in a file.
        given: Tokens of one epoch, if the command line says so.
    """
    current = _joined([_size(raw, name, training.units, registry) for name in _names(raw)])
    ratios = _replayed(config)
    pools = {name: _size(raw, name, training.units, registry) for name in ratios}
    steps = int(raw.get("max_steps") or -1)
    if steps > 0:
        n_rows = float(steps * training.batch * training.accumulation * training.processes)
        means = [(1.0, _mean(current, training.cutoff))]
        means += [(ratio, _mean(pools[name] or current, training.cutoff)) for name, ratio in ratios.items()]
        if current is None or any(mean is None for _, mean in means):
            return Tokens(n_rows * training.cutoff, "at most, for rows of cutoff_len")
        weight = sum(ratio for ratio, _ in means)
        return Tokens(n_rows * sum(ratio * (mean or 0.0) for ratio, mean in means) / weight, current.source)
    if given is not None:
        return Tokens(given * (1.0 + sum(ratios.values())) * _epochs(raw), "of --tokens")
    if current is None:
        return Tokens(None, "")
    own = current.tokens if current.rows is None else current.rows * (_mean(current, training.cutoff) or 0.0)
    replayed = 0.0
    for name, ratio in ratios.items():
        mean = _mean(pools[name], training.cutoff)
        replayed += ratio * (own if mean is None or current.rows is None else current.rows * mean)
    return Tokens((own + replayed) * _epochs(raw), current.source)


def _epochs(raw: Mapping[str, Any]) -> float:
    return float(raw.get("num_train_epochs", 3.0))


def _names(raw: Mapping[str, Any]) -> list[str]:
    names = raw.get("dataset") or ""
    return [str(name).strip() for name in (names if isinstance(names, list) else str(names).split(",")) if name]


def _replayed(config: SlmConfig | None) -> dict[str, float]:
    """Return rows replayed per row of the current stage, by data set."""
    found: dict[str, float] = {}
    for item in config.block.mitigations if config else []:
        for name, ratio in dict(item.get("replay", {}).get("sources", {})).items():
            found[name] = found.get(name, 0.0) + float(
                ratio if not isinstance(ratio, Mapping) else ratio.get("ratio", 0.0)
            )
    return found


def _mean(size: SetSize | None, cutoff: int) -> float | None:
    return None if size is None or not size.rows else min(float(cutoff), size.tokens / size.rows)


def _joined(sizes: list[SetSize | None]) -> SetSize | None:
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    rows = None if any(size.rows is None for size in known) else sum(size.rows or 0.0 for size in known)
    return SetSize(sum(size.tokens for size in known), rows, ", ".join(dict.fromkeys(size.source for size in known)))


def _size(raw: Mapping[str, Any], name: str, units: int, registry: Registry) -> SetSize | None:
    """Return the size of a set that ``slm prepare`` made, of a file of JSON lines, or of a published set."""
    folder = Path(str(raw.get("dataset_dir", "data")))
    try:
        entry = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))[name]
        if "script_url" in entry:
            card = folder / entry["script_url"] / "card.json"
            numbers = json.loads(card.read_text(encoding="utf-8"))["numbers"]
            tokens = float(numbers["units"]) + TOKENS_PER_WORD * float(numbers["words"])
            return SetSize(tokens, float(numbers["rows"]), "of the data card")
        if "hf_hub_url" in entry:
            return SetSize(float(PUBLISHED_TOKENS[entry["hf_hub_url"]]), None, "of a published set")
        return _counted(folder / entry["file_name"], str(entry.get("formatting", "")), units, registry)
    except (OSError, ValueError, KeyError, TypeError, SlmError):
        return None


def _counted(path: Path, formatting: str, units: int, registry: Registry) -> SetSize | None:
    if path.suffix != ".jsonl" or not formatting.startswith("slm_"):
        return None
    stage = registry.stages.get(formatting.removeprefix("slm_"))()
    with path.open(encoding="utf-8") as file:
        lines = list(islice(file, COUNTED_ROWS))
        n_rows = len(lines) + sum(1 for _ in file)
    counts = [_tokens_of(stage.sample(json.loads(line), units)) for line in lines if line.strip()]
    mean = sum(counts) / max(1, len(counts))
    return SetSize(n_rows * mean, float(n_rows), f"counted on {len(counts)} rows")


def _tokens_of(sample: Sample | None) -> float:
    if sample is None:
        return 0.0
    text = f"{sample.user} {sample.assistant}"
    return len(text_to_units(text)) + TOKENS_PER_WORD * len(strip_units(text).split())
