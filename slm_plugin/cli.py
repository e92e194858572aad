"""The ``slm`` command."""

from __future__ import annotations

import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from slm_plugin import __version__
from slm_plugin.errors import PipelineError, SlmError, suggest
from slm_plugin.lazy_commands import describe_missing, lazy_group

COMMANDS = "slm_plugin.commands"
"""Entry-point group of further verbs; ``slm serve`` of ``slm_serve`` is one."""

VERBS = {
    "doctor": "slm_plugin.doctor.command:doctor",
    "run": "slm_plugin.cli:run_pipeline",
    "eval": "slm_plugin.cli:evaluate_step",
    "export-check": "slm_plugin.adapters.command:export_check",
    "experts": "slm_plugin.experts.command:experts",
    "infer": "slm_plugin.infer.command:infer",
    "merge": "slm_plugin.merge.command:merge_file",
    "extract-text": "slm_plugin.text_decoder.command:extract_text",
    "prepare": "slm_plugin.prepare.command:prepare_corpus",
    "report": "slm_plugin.report.command:report",
    "units": "slm_plugin.listen.command:units",
    "codec": "slm_plugin.speech.codec_command.app:make_codec_app",
    "replay": "slm_plugin.replay_synthesis.command:make_replay_app",
}
"""Where each verb is; a module is imported when its verb is used, so it must be light at import."""

GROUPS = frozenset({"codec", "replay"})
"""Verbs that are groups of verbs."""

INTERRUPTED = 130

PipelineFile = Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="The pipeline file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value",
        help="Changes: output=DIR (moves everything that is written), seed=N (of every step that has one), a key of"
        " the file such as steps.STEP.processes=2, or of the YAML of a step such as steps.STEP.train.max_steps=100.",
    ),
]


def run_pipeline(
    pipeline: PipelineFile,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why, and stop.")] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Begin interrupted trainings at their first step, and delete outputs that are replaced.",
        ),
    ] = False,
    logs: Annotated[
        bool | None,
        typer.Option("--logs/--no-logs", help="Show the steps' logs as they are written; on a terminal unless told."),
    ] = None,
) -> None:
    """Run the steps of a pipeline that are not finished and print its summary."""
    from rich.console import Console

    from slm_plugin.host.keys import check_settings
    from slm_plugin.pipeline import plan, results, runner
    from slm_plugin.pipeline.progress import Progress
    from slm_plugin.plugins import Registry

    registry = Registry.load()
    loaded = plan.load(pipeline, registry, overrides or (), partial(check_settings, registry=registry))
    if dry_run:
        for intention in runner.intentions(loaded, restart):
            what = f"run: {'; '.join(intention.reasons)}" if intention.reasons else "finished before"
            typer.echo(f"{intention.name}: {'; '.join((what, *intention.notes))}")
        return
    console = Console()
    with Progress(console, console.is_terminal if logs is None else logs) as progress:
        outcomes = runner.run(loaded, pipeline, progress, restart)
    typer.echo("\n" + results.write_results(loaded, outcomes))


def evaluate_step(
    pipeline: PipelineFile,
    step: Annotated[str, typer.Option(help="Name of the evaluation step.")],
    overrides: Overrides = None,
) -> None:
    """Score the model of one evaluation step with every skill of the pipeline."""
    from slm_plugin.eval.evaluate import evaluate
    from slm_plugin.eval.generator import load_generator
    from slm_plugin.pipeline import plan, results
    from slm_plugin.pipeline.runner import scores_path
    from slm_plugin.plugins import Registry

    registry = Registry.load()
    loaded = plan.load(pipeline, registry, overrides or ())
    found = {item.name: item.evaluate for item in loaded.steps if item.evaluate is not None}
    if step not in found:
        raise PipelineError(f"{pipeline} has no evaluation step {step!r}. {suggest(step, found, 'Evaluations')}")
    wanted = found[step]
    skills = [(skill.skill, skill.probe, skill.options) for skill in loaded.skills]
    adapter = Path(wanted.adapter) if wanted.adapter else None
    with closing(load_generator(Path(wanted.model), adapter, loaded.engine)) as generator:
        scores = evaluate(generator, skills, registry)
    results.write_scores(scores_path(Path(loaded.output), wanted.stage), scores)
    for skill, score in scores.items():
        notes = "".join(f", {name} {value:.3f}" for name, value in score.notes.items())
        typer.echo(f"{skill}: {score.value:.3f} (n {score.n}{notes})")


def make_app() -> typer.Typer:
    """Return the command with every installed verb."""
    app = typer.Typer(
        name="slm",
        cls=lazy_group(VERBS, GROUPS, COMMANDS),
        help="Train, measure and serve spoken language models on LLaMA-Factory and vLLM.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
        if version:
            typer.echo(__version__)
            raise typer.Exit

    return app


def main() -> None:
    """Run the command; a user's mistake is one message on stderr and exit status 2."""
    try:
        make_app()(standalone_mode=True)
    except SlmError as error:
        sys.stderr.write(f"slm: {type(error).__name__}: {error}\n")
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = describe_missing(error)
        if missing is None:
            raise
        sys.stderr.write(f"slm: {missing}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("slm: stopped\n")
        sys.exit(INTERRUPTED)
