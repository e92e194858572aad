"""``slm infer CONFIG.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

InferFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Model, codec, data sets, sampling.")]


def infer(file: InferFile) -> None:
    """Answer sets of spoken questions: tokens, text and sound of every answer."""
    from slm_plugin.generation.engines import make_engine
    from slm_plugin.infer import options as infer_options
    from slm_plugin.infer.adapter import answering
    from slm_plugin.infer.answers import answer_all
    from slm_plugin.plugins import Registry
    from slm_plugin.speech.codecs import load_codec

    options = infer_options.load(file)
    codec = load_codec(options.codec, Registry.load())
    with answering(options) as adapter:
        done = answer_all(
            options, codec, lambda: make_engine(options.engine, Path(options.model), adapter), typer.echo
        )
    for found in done:
        failed = f", {found.n_failed} not usable (see the column error)" if found.n_failed else ""
        again = f", {found.n_skipped} of {found.n_files} files were there already" if found.n_skipped else ""
        typer.echo(f"{Path(options.output) / found.name}: {found.n_rows} questions{failed}{again}")
    if options.push_to_hub is not None:
        from huggingface_hub import HfApi

        from slm_plugin.data.upload import push

        for repository in push(
            Path(options.output),
            [found.name for found in done],
            options.push_to_hub,
            HfApi(),
            public=options.push_public,
        ):
            typer.echo(f"uploaded {repository}")
