"""``slm prepare``: a corpus becomes a data set of units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Arguments = Annotated[
    list[str], typer.Argument(metavar="[CONFIG.yaml] [key=value ...]", help="The keys, in a file, here, or both.")
]


def prepare_corpus(arguments: Arguments) -> None:
    """Turn recordings, or text chats that are spoken, into rows of units with words; goes on where it stopped."""
    from rich.console import Console

    from slm_plugin.plugins import Registry
    from slm_plugin.prepare import options as prepare_options
    from slm_plugin.prepare.finish import CARD
    from slm_plugin.prepare.progress import Progress
    from slm_plugin.prepare.recordings import RETRIED
    from slm_plugin.prepare.run import prepare

    options = prepare_options.load(arguments)
    _, found = prepare(options, Registry.load(), Progress(Console()))
    if found is None:
        return
    numbers = found.summary()
    dropped = ", ".join(f"{reason} {n}" for reason, n in numbers["dropped"].items())
    typer.echo(
        f"{options.folder}: {numbers['rows']} of {numbers['items']} items, {numbers['hours']:.2f} hours,"
        f" {numbers['units']} units{f'; dropped: {dropped}' if dropped else ''}"
    )
    again = sum(n for reason, n in numbers["dropped"].items() if reason in RETRIED)
    if again:
        typer.echo(f"{again} items were dropped for faults of this machine; run the same command again to retry them.")
    silent = numbers["flags"]["silent"]
    if silent:
        typer.echo(f"{silent} of the rows are silent; `drop.flags=[silent]` leaves such rows out.")
    for what, terms in json.loads((options.folder / CARD).read_text(encoding="utf-8"))["licences"].items():
        typer.echo(f"terms of the {what}: {terms}")
    if options.push_to_hub is not None:
        from huggingface_hub import HfApi

        from slm_plugin.data.upload import push

        for repository in push(
            Path(options.output), [options.name], options.push_to_hub, HfApi(), "", options.push_public
        ):
            typer.echo(f"uploaded {repository}")
