"""``slm report RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from slm_plugin.errors import ConfigError, Problem

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Output folders of slm run.")]
Pairs = list[str]


def report(
    runs: Runs,
    output: Annotated[Path | None, typer.Option(help="Folder to write to.  [default: the first RUN]")] = None,
    pipeline: Annotated[Path | None, typer.Option(help="Pipeline file, for gates and commands.")] = None,
    codec: Annotated[str | None, typer.Option(help="Codec to play answers with.  [default: of serve.json]")] = None,
    learned: Annotated[
        Pairs | None, typer.Option(metavar="SKILL=STAGE", help="Row after which a skill counts as learned.")
    ] = None,
    chance: Annotated[
        Pairs | None, typer.Option(metavar="SKILL=SCORE", help="Score of an untrained model, for FWT.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading.  [default: names of the runs]")] = "",
    samples: Annotated[int, typer.Option(min=0, help="Generations for each stage and skill.")] = 3,
    audio: Annotated[int, typer.Option(min=0, help="Answers that can be played, in all.")] = 24,
    drift: Annotated[bool, typer.Option(help="Read weights to say how far they moved.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 1126,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="The runs are one pipeline under several seeds: show their spread.")
    ] = False,
) -> None:
    """Write report.html, report.json and report.md: what runs have measured, as one page."""
    from slm_plugin.plugins import Registry
    from slm_plugin.report.collect import ReportOptions, collect
    from slm_plugin.report.output import write

    problems: list[Problem] = []
    stages = _pairs(learned or [], "--learned", "SKILL=STAGE", problems)
    scores = _scores(_pairs(chance or [], "--chance", "SKILL=SCORE", problems), problems)
    if problems:
        raise ConfigError(problems)
    options = ReportOptions(
        title=title,
        pipeline=pipeline,
        codec=codec,
        learned=stages,
        chance=scores,
        samples=samples,
        audio=audio,
        drift=drift,
        seed=seed,
        repeats=repeats,
    )
    for path in write(collect(runs, options, Registry.load()), output or runs[0]):
        typer.echo(f"wrote {path}")


def _pairs(texts: Sequence[str], option: str, form: str, problems: list[Problem]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            problems.append(Problem(f"{option} {text}", f"must have the form {form}."))
        found[name] = value
    return found


def _scores(texts: dict[str, str], problems: list[Problem]) -> dict[str, float]:
    found = {}
    for name, text in texts.items():
        try:
            found[name] = float(text)
        except ValueError:
            problems.append(Problem(f"--chance {name}={text}", "the score must be a number, such as 0.25."))
    return found
