"""``slm export-check``: whether vLLM takes an adapter, and a form of it that vLLM takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AdapterFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The adapter.")]
BaseOption = Annotated[Path | None, typer.Option(help="Model to serve it on; the adapter's own unless given.")]
ConvertOption = Annotated[
    Path | None, typer.Option(metavar="OUT", help="Write OUT/base and OUT/adapter, which vLLM takes.")
]


def export_check(folder: AdapterFolder, base: BaseOption = None, convert: ConvertOption = None) -> None:
    """Tell whether vLLM takes an adapter as plain LoRA (exit status 0) or why not (1)."""
    from slm_plugin.adapters.convert import convert as convert_adapter
    from slm_plugin.adapters.lora import load_config
    from slm_plugin.adapters.serving import refusals
    from slm_plugin.errors import WeightsError

    recorded = Path(load_config(folder).get("base_model_name_or_path") or "")
    if base is None and recorded.name and recorded.is_dir():
        base = recorded
    found = refusals(folder, base)
    if not found:
        typer.echo(f"vLLM takes {folder} as it is.")
    for reason in found:
        typer.echo(f"vLLM refuses {folder}: {reason}.")
    if base is None:
        typer.echo("Its base is not a folder here: give --base to check names, shapes and vocabulary.")
    if convert is None:
        raise typer.Exit(1 if found else 0)
    if base is None:
        raise WeightsError(f"the base of {folder} is not a folder here: give it by --base to convert the adapter.")
    convert_adapter(folder, base, convert)
    left = refusals(convert / "adapter", convert / "base")
    for reason in left:
        typer.echo(f"vLLM refuses {convert / 'adapter'}: {reason}.")
    if left:
        raise typer.Exit(1)
    typer.echo(f"wrote {convert / 'adapter'} and the base to serve it on, {convert / 'base'}.")
