"""The models and adapters of a run: how far their weights moved, and what was replayed to train them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_plugin import card
from slm_plugin.adapters.lora import CONFIG_FILE, load_config
from slm_plugin.errors import SlmError
from slm_plugin.report.content import Drift
from slm_plugin.report.folder import RunFolder, configuration, read_object
from slm_plugin.report.steps import output_folders


def run_drifts(run: RunFolder, notes: list[str]) -> list[Drift]:
    """Return the drift of every model and adapter that a step wrote or that was scored, in their order.

    An adapter is compared with the base that its configuration names, a model with the one that its card or
    the YAML of its step names. What cannot be compared is added to ``notes``.
    """
    found: list[Drift] = []
    seen: set[Path] = set()
    for folder, base_name in _models(run, notes):
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        base = run.locate(base_name)
        if base is None or not base.is_dir() or base.resolve() == folder.resolve():
            continue
        # here, because a report without weights must not load torch
        from slm_plugin.report.drift import adapter_drift, model_drift

        compare = adapter_drift if (folder / CONFIG_FILE).is_file() else model_drift
        try:
            found.append(compare(folder, base, _shown(run, folder), _shown(run, base)))
        except SlmError as error:
            notes.append(f"Weights of {_shown(run, folder)} were not compared: {error}")
    return found


def replay_counts(run: RunFolder) -> dict[str, dict[str, int]]:
    """Return ``{stage: {data set: rows}}`` of ``counts.json``, or from the cards of adapters before it is written."""
    written = read_object(run.path / "counts.json")
    if not written:
        for folder in output_folders(run):
            written[_shown(run, folder)] = _card(folder).get("replay")
    counts = {stage: dict(rows) for stage, rows in written.items() if isinstance(rows, dict) and rows}
    return {stage: {str(name): int(count) for name, count in rows.items()} for stage, rows in counts.items()}


def _models(run: RunFolder, notes: list[str]) -> Iterator[tuple[Path, str | None]]:
    """Yield the folders with weights and the name of what each was made from."""
    configs = {}
    for step in run.pipeline.steps:
        config = configuration(run, step)
        if isinstance(config, dict):
            for key in ("output_dir", "export_dir"):
                folder = run.locate(config.get(key) if isinstance(config.get(key), str) else None)
                if folder is not None:
                    configs[folder.resolve()] = config.get("model_name_or_path")
    scored = [run.locate(row.adapter or row.model) for step in run.pipeline.steps if (row := step.evaluate)]
    for path in [*output_folders(run), *scored]:
        if path is None or not path.is_dir():
            continue
        if (path / CONFIG_FILE).is_file():
            try:
                yield path, str(load_config(path).get("base_model_name_or_path") or "") or None
            except SlmError as error:
                notes.append(f"Weights of {_shown(run, path)} were not compared: {error}")
        elif any(path.glob("model*.safetensors")):
            yield path, _recorded_base(path) or configs.get(path.resolve())


def _recorded_base(folder: Path) -> str | None:
    path = (_card(folder).get("base") or {}).get("path")
    return path if isinstance(path, str) else None


def _card(folder: Path) -> dict[str, Any]:
    try:
        return card.read(folder)
    except SlmError:
        return {}


def _shown(run: RunFolder, folder: Path) -> str:
    inside = folder.resolve()
    root = run.path.resolve()
    return str(inside.relative_to(root)) if inside.is_relative_to(root) else folder.name
