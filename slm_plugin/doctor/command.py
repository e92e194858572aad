"""``slm doctor``: what is here, what is missing, and what a recipe would need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

PlanOption = Annotated[
    Path | None, typer.Option("--plan", metavar="YAML", help="Estimate a train, export, pipeline or prepare file.")
]
ModelOption = Annotated[str | None, typer.Option(help="Model that the recipe's will be made from; a name or folder.")]
GpusOption = Annotated[int, typer.Option(min=1, help="GPUs that train together.")]
GpuOption = Annotated[str | None, typer.Option(help="What they are, such as A100; this machine's unless given.")]
TokensOption = Annotated[float | None, typer.Option(min=1, help="Tokens of one epoch, where the data does not say.")]
ImportHost = Annotated[
    bool, typer.Option("--import-host", help="Also import LLaMA-Factory, in a child process: 15 s and more.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")]

SIGNS = {"ok": "ok      ", "optional": "optional", "missing": "MISSING "}


def doctor(
    plan: PlanOption = None,
    model: ModelOption = None,
    gpus: GpusOption = 1,
    gpu: GpuOption = None,
    tokens: TokensOption = None,
    import_host: ImportHost = False,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, what is missing and the command that adds it; status 1 where something must be added."""
    if plan is not None:
        from slm_plugin.doctor.gpus import find_gpu, this_gpu
        from slm_plugin.doctor.plan import Wishes
        from slm_plugin.doctor.plan import plan as plan_file
        from slm_plugin.plugins import Registry

        found_gpu = find_gpu(gpu) if gpu else this_gpu()
        wishes = Wishes(model, gpus, found_gpu, tokens, cpu=found_gpu is None and gpus == 1)
        for line in plan_file(plan, Registry.load(), wishes):
            typer.echo(line)
        return
    from slm_plugin.doctor.checks import all_checks

    found = all_checks(import_host)
    if as_json:
        typer.echo(json.dumps([vars(check) for check in found], indent=2))
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            typer.echo(f"{SIGNS[check.state]}  {check.name:<{width}}  {check.found}")
            if check.mend:
                typer.echo(f"{'':{len(SIGNS['ok']) + 2 + width}}  -> {check.mend}")
    if any(check.state == "missing" for check in found):
        raise typer.Exit(1)
