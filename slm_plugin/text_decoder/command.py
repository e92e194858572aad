"""``slm extract-text``: the text decoder of a vision-language model as a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Folder of an Mllama, or its name on the hub.")]
OutputFolder = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write the Llama to.")]

_NEEDED = ("*.json", "*.jinja", "*.safetensors")


def extract_text(model: ModelName, output: OutputFolder) -> None:
    """Write the text decoder of an Mllama (Llama 3.2 Vision) as a Llama, which trains, merges and serves."""
    from slm_plugin.text_decoder.extract import extract_text_decoder

    done = extract_text_decoder(_local(model), output)
    layout = done.layout
    typer.echo(
        f"wrote {output}: {done.n_parameters:,} parameters, {len(layout.kept_layers)} layers, {layout.rows} tokens."
    )
    left_out = ", ".join(map(str, layout.left_out_layers)) or "none"
    typer.echo(f"left out: cross-attention layers {left_out}; tokens {', '.join(done.tokens_left_out) or 'none'}.")


def _local(model: str) -> Path:
    """Return the folder of a model, fetched from the hub where the name is not one of a folder here."""
    from slm_plugin.errors import WeightsError

    folder = Path(model)
    if folder.exists() or folder.is_absolute() or model.startswith(".") or model.count("/") != 1:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(_NEEDED), ignore_patterns=["original/*"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise WeightsError(f"{model} is no folder here and cannot be fetched from the hub: {why}") from None
