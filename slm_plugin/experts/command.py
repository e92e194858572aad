"""``slm experts FILE.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ExpertsFile = Annotated[Path, typer.Argument(metavar="EXPERTS.yaml", help="Parent, experts and rounds.")]


def experts(file: ExpertsFile) -> None:
    """Train experts in parallel from one parent and average them, round after round."""
    from rich.console import Console

    from slm_plugin.experts import plan as experts_plan
    from slm_plugin.experts.rounds import write_pipeline
    from slm_plugin.pipeline import plan, results, runner
    from slm_plugin.pipeline.progress import Progress
    from slm_plugin.plugins import Registry

    path = write_pipeline(experts_plan.load(file))
    pipeline = plan.load(path, Registry.load())
    with Progress(Console()) as progress:
        outcomes = runner.run(pipeline, path, progress)
    typer.echo("\n" + results.write_results(pipeline, outcomes))
    averages = [step.outputs[0] for step in pipeline.steps if step.name.endswith("_average") and step.command]
    typer.echo(f"the average of the last round is in {averages[-1]}")
