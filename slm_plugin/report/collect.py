"""Gather everything that a report shows from the folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from slm_plugin import __version__
from slm_plugin.errors import ConfigError, Problem, SlmError, suggest
from slm_plugin.eval.statistics import RESAMPLES, Items
from slm_plugin.plugins import Registry
from slm_plugin.report import matrices
from slm_plugin.report.compare import Entry, compare
from slm_plugin.report.content import Report, RunReport, Samples
from slm_plugin.report.curves import trainings
from slm_plugin.report.folder import RunFolder, open_run
from slm_plugin.report.models import replay_counts, run_drifts
from slm_plugin.report.repeats import spreads
from slm_plugin.report.samples import Sounds, codec_name, read_samples, spoken, with_audio
from slm_plugin.report.steps import output_folders, step_lines, versions
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.protocol import Codec
from slm_plugin.strict import Strict


class ReportOptions(Strict):
    """What a report shows and how."""

    title: str = ""
    """Heading; the names of the runs where it is empty."""

    pipeline: Path | None = None
    """File that the runs were started with; looked for in their folders unless given."""

    codec: str | None = None
    """Codec of the units in answers, a name or a folder; that of ``serve.json`` unless given."""

    learned: dict[str, str] = Field(default_factory=dict)
    """Row of the matrix after which a skill counts as learned, by skill."""

    chance: dict[str, float] = Field(default_factory=dict)
    """Score of an untrained model by skill; forward transfer is defined for these only."""

    samples: int = Field(default=3, ge=0)
    """Generations shown for each stage and skill; 0 shows none."""

    audio: int = Field(default=24, ge=0)
    """Answers that can be played, in all; 0 gives a page without audio of answers."""

    drift: bool = True
    """Whether weights are read to say how far they moved."""

    seed: int = Field(default=1126, ge=0)
    """Seed of the bootstrap."""

    repeats: bool = False
    """Whether the runs are one pipeline under several seeds: their spread and noise floor are shown."""


def collect(folders: Sequence[Path], options: ReportOptions, registry: Registry) -> Report:
    """Return the report of runs.

    Raises:
        PipelineError: A folder is not that of a run.
        ConfigError: A skill or stage of the options is in no run, or runs said to be repeats are none.
        CodecError: The codec of the options does not exist.
    """
    runs = [open_run(folder, options.pipeline) for folder in folders]
    scores = [matrices.read_scores(run) for run in runs]
    _check_names(runs, scores, options)
    sounds = Sounds(None, options.audio)
    reports, entries = [], []
    for position, (run, found) in enumerate(zip(runs, scores, strict=True)):
        gates = matrices.read_gates(run, found)
        taught = matrices.gate_stages(run, gates)
        variants = matrices.read_variants(run, found, options.learned, taught, options.chance)
        notes = list(run.notes)
        sounds.codec = _codec(run, options, registry, notes)
        last = [variant.evaluations[-1] for variant in variants]
        samples = _samples(found, last, options, sounds)
        reports.append(
            RunReport(
                name=run.name,
                folder=str(run.path),
                pipeline=str(run.file) if run.file is not None else None,
                better=matrices.directions(found),
                variants=variants,
                gates=gates,
                replay=replay_counts(run),
                trainings=trainings(run.path, output_folders(run)),
                drifts=run_drifts(run, notes) if options.drift else [],
                samples=samples,
                spoken=spoken(run.path, f"run-{position}", sounds),
                transcript=_text(run.path / "transcript.txt"),
                steps=step_lines(run),
                versions=versions(run),
                notes=[*notes, *_missing(run, found), *dict.fromkeys(sounds.errors)],
            )
        )
        sounds.errors.clear()
        for variant in variants:
            label = variant.name if len(runs) == 1 or variant.name == run.name else f"{run.name}: {variant.name}"
            items = _items(found[variant.evaluations[-1]])
            entries.append(Entry(label, variant, items, position, _definitions(run, variant.evaluations[-1])))
    if sounds.refused:
        limit = f"{sounds.refused} further answers could be played; the page holds {options.audio} (--audio)."
        reports[-1] = replace(reports[-1], notes=[*reports[-1].notes, limit])
    better = {skill: direction for report in reports for skill, direction in report.better.items()}
    return Report(
        title=options.title or ", ".join(run.name for run in runs),
        version=__version__,
        seed=options.seed,
        resamples=RESAMPLES,
        first=entries[0].label if entries else "",
        comparisons=compare(entries, better, options.seed),
        runs=reports,
        seeds=spreads(reports) if options.repeats else (),
        audio=sounds.found,
    )


def _check_names(
    runs: Sequence[RunFolder], scores: Sequence[Mapping[str, Mapping[str, Any]]], options: ReportOptions
) -> None:
    skills = {skill for content in scores for found in content.values() for skill in found}
    rows = [step.evaluate for run in runs for step in run.pipeline.steps if step.evaluate is not None]
    stages = {row.label or row.stage for row in rows}
    problems = []
    for name, values in (("--learned", options.learned), ("--chance", options.chance)):
        problems += [
            Problem(f"{name} {skill}", f"no run has a skill of that name. {suggest(skill, skills, 'Skills')}")
            for skill in values
            if skill not in skills
        ]
    for skill, stage in options.learned.items():
        if stage not in stages:
            what = f"no row is called {stage!r}. {suggest(stage, stages, 'Rows')}"
            problems.append(Problem(f"--learned {skill}={stage}", what))
    if problems:
        raise ConfigError(problems)


def _codec(run: RunFolder, options: ReportOptions, registry: Registry, notes: list[str]) -> Codec | None:
    if options.codec is not None:
        return load_codec(options.codec, registry)
    name = codec_name(run.path)
    if name is None:
        notes.append("Answers cannot be played: serve.json names no codec; give --codec.")
        return None
    try:
        found = name if name in registry.codecs else str(run.locate(name) or name)
        return load_codec(found, registry)
    except SlmError as error:
        notes.append(f"Answers cannot be played: {error}")
        return None


def _samples(
    scores: Mapping[str, Mapping[str, Any]], last: Sequence[str], options: ReportOptions, sounds: Sounds
) -> list[Samples]:
    """Return the generations of all evaluations; those of last rows have first claim on audio."""
    found = {stage: read_samples(content, stage, options.samples) for stage, content in scores.items()}
    for stage in sorted(found, key=lambda stage: stage not in last):
        found[stage] = [with_audio(samples, sounds) for samples in found[stage]]
    return [samples for stage in found for samples in found[stage]]


def _missing(run: RunFolder, scores: Mapping[str, Any]) -> list[str]:
    planned = [step.evaluate.stage for step in run.pipeline.steps if step.evaluate is not None]
    away = [stage for stage in planned if stage not in scores]
    notes = []
    if not scores:
        notes.append("Nothing has been scored yet.")
    elif away:
        notes.append(f"Not scored yet: {', '.join(away)}.")
    if not run.lineage:
        notes.append("There is no record of finished steps.")
    return notes


def _items(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Items]:
    return {skill: [(pair[0], pair[1]) for pair in score.get("items") or []] for skill, score in scores.items()}


def _definitions(run: RunFolder, stage: str) -> dict[str, Any]:
    """Return how each skill was scored in an evaluation: its probe and options.

    Files count by their content, as far as it was recorded, and the number of answers that are kept does not count.
    """
    steps = [step.name for step in run.pipeline.steps if step.evaluate is not None and step.evaluate.stage == stage]
    inputs = run.lineage.get(steps[0], {}).get("inputs", {}) if steps else {}
    return {
        skill.skill: (
            skill.probe,
            {key: inputs.get(f"file {value}", value) for key, value in skill.options.items() if key != "examples"},
        )
        for skill in run.pipeline.skills
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
