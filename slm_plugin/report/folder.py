"""The output folder of ``slm run``: what is in it, and what is known of the pipeline that wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from slm_plugin.errors import PipelineError, SlmError
from slm_plugin.pipeline import lineage, plan, records
from slm_plugin.pipeline.plan import Evaluation, Pipeline, Step
from slm_plugin.strict import parse

SIGNS = ("matrix.json", "variants.json", lineage.FILE_NAME, "scores", records.FOLDER)
"""A folder with any of these was written by ``slm run``."""

PIPELINE_FILES = ("pipeline.yaml", "configs/pipeline.yaml")
"""Where a pipeline file is looked for in a run's folder."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder with the pipeline that wrote it, as far as it is known.

    Attributes:
        path: The folder.
        pipeline: Read from its file, else put together from ``lineage.json``, else from the matrices.
        file: The pipeline file; None where it is not known.
        lineage: Content of ``lineage.json``, completed from ``.steps``.
        notes: What could not be read, for the page.
    """

    path: Path
    pipeline: Pipeline
    file: Path | None
    lineage: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Last part of the folder's path."""
        return self.path.resolve().name

    def locate(self, name: str | None) -> Path | None:
        """Return where a file or folder of the pipeline is now; None where it is nowhere to be found.

        Paths of a pipeline are relative to the folder it was started in, which is an ancestor of the run's
        unless the run was moved; what lies in its output folder is found there in any case.
        """
        if not name:
            return None
        path = Path(name)
        if path.is_absolute():
            return path if path.exists() else None
        candidates = [folder / path for folder in (*self.path.resolve().parents, Path.cwd())]
        if path.is_relative_to(self.pipeline.output):
            candidates.insert(0, self.path / path.relative_to(self.pipeline.output))
        return next((candidate for candidate in candidates if candidate.exists()), None)


def open_run(path: Path, pipeline_file: Path | None) -> RunFolder:
    """Look into the output folder of a run.

    Args:
        path: The folder.
        pipeline_file: The file that the run was started with; looked for in the folder unless given.

    Raises:
        PipelineError: The folder was not written by ``slm run``, or the given pipeline file cannot be read.
        ConfigError: The given pipeline file is wrong.
    """
    if not any((path / sign).exists() for sign in SIGNS):
        raise PipelineError(f"{_no_run(path)} {_nearest(path)}")
    known, notes = _lineage(path), []
    if pipeline_file is not None:
        return RunFolder(path, plan.read(pipeline_file), pipeline_file, known)
    for name in PIPELINE_FILES:
        if (path / name).is_file():
            try:
                return RunFolder(path, plan.read(path / name), path / name, known)
            except SlmError as error:
                notes.append(f"{name} cannot be used: {error}")
    return RunFolder(path, _remembered(path, known), None, known, tuple(notes))


def configuration(run: RunFolder, step: Step) -> Any:
    """Return the host YAML that a step ran with; None where it is not known."""
    recorded = run.lineage.get(step.name, {}).get("config")
    if recorded is not None:
        return recorded
    file = run.locate(step.train or step.export)
    if file is None:
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, YAMLError, OmegaConfBaseException):
        return None


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none, or it is being written."""
    return dict(records.read_json(path) or {})


def _lineage(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_object(path / lineage.FILE_NAME)
    if not found:
        files = sorted((path / records.FOLDER).glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files:
            record = records.read(path, file.stem)
            if record is not None:
                measured = {"seconds": record.seconds, "cpu_seconds": record.cpu_seconds}
                known = {"fingerprint": record.fingerprint, "inputs": dict(record.inputs)}
                found[record.name] = {**record.lineage, **known, **measured}
    return found


def _remembered(path: Path, known: Mapping[str, Mapping[str, Any]]) -> Pipeline:
    """Put the pipeline together again: the recorded definitions of its steps, else a row per file of scores."""
    steps, output = [], str(path)
    for name, entry in known.items():
        try:
            step = parse(Step, entry.get("definition"), name)
        except SlmError:
            continue
        steps.append(step)
        if step.evaluate is not None:
            for written in entry.get("outputs", {}):
                output = str(Path(written).parent.parent)
    measured = {step.evaluate.stage for step in steps if step.evaluate is not None}
    scored = [file.stem for file in sorted((path / "scores").glob("*.json"), key=lambda file: file.stat().st_mtime)]
    if not set(scored) <= measured:
        trained = [step for step in steps if step.evaluate is None]
        rows = [Step.model_construct(name=f"eval {row.stage}", evaluate=row) for row in _rows(path, scored)]
        steps = [*trained, *rows]
    if not steps:
        steps = [Step.model_construct(name="nothing", command=[])]
    return Pipeline.model_construct(output=output, steps=steps, skills=[], gates=[])


def _rows(path: Path, scored: list[str]) -> Iterator[Evaluation]:
    """Yield the rows of ``matrix.json``, then scores that it does not name."""
    first = [stage for stage in read_object(path / "matrix.json").get("stages", []) if stage in scored]
    for stage in [*first, *(stage for stage in scored if stage not in first)]:
        folder = path / stage
        adapter = str(folder) if (folder / "adapter_config.json").is_file() else None
        yield Evaluation(model="" if adapter or not folder.is_dir() else str(folder), adapter=adapter, stage=stage)


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist; the output folder of slm run is needed."
    if not path.is_dir():
        return f"{path} is a file; the output folder of slm run is needed."
    return f"{path} is not the output folder of slm run: it has none of {', '.join(SIGNS)}."


def _nearest(path: Path) -> str:
    parent = path.parent
    folders = [path, *path.iterdir()] if path.is_dir() else (list(parent.iterdir()) if parent.is_dir() else [])
    if path.is_dir() and parent.is_dir():
        folders += parent.iterdir()
    runs = sorted({str(folder) for folder in folders if any((folder / sign).exists() for sign in SIGNS)})
    if not runs:
        return "No run is near it."
    close = difflib.get_close_matches(str(path), runs, n=1, cutoff=0.0)
    return f"Did you mean {close[0]!r}? Runs near it: {', '.join(runs)}."
