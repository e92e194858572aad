"""``slm replay``: replay sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slm_plugin.replay_synthesis.options import SynthesisOptions

_WHERE = "slm replay synthesise"


def make_replay_app() -> typer.Typer:
    """Return the command group ``slm replay``."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, help="Replay sets.")

    @app.callback()
    def root() -> None:
        """Replay sets."""

    app.command("synthesise")(synthesise_rows)
    return app


def synthesise_rows(
    model: Annotated[Path, typer.Option(help="Folder of the model of the previous stage.")],
    stage: Annotated[str, typer.Option(help="Rows to write: llm, asr, tts or sqa.")],
    rows: Annotated[int, typer.Option(help="Rows wanted.")],
    output: Annotated[Path, typer.Option(help="Folder for the rows and dataset_info.json.")],
    adapter: Annotated[Path | None, typer.Option(help="Adapter of the model, merged before it writes.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON lines to answer; llm can do without.")] = None,
    name: Annotated[str, typer.Option(help="Name of the data set.  [default: own_<stage>]")] = "",
    engine: Annotated[str, typer.Option(help="auto, vllm or transformers.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 1126,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Share of probability that is drawn from.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Where an answer without end is given up.")] = 1024,
    attempts: Annotated[int, typer.Option(help="Answers asked for at most, per row wanted.")] = 4,
    min_tokens: Annotated[int, typer.Option(help="Shortest answer kept.")] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer kept.")] = None,
    max_repeats: Annotated[int, typer.Option(help="Repeats in a row of one to eight words.")] = 8,
    max_unit_run: Annotated[int, typer.Option(help="Equal units in a row.")] = 150,
    max_word_errors: Annotated[float, typer.Option(help="Word error rate of what is spoken.")] = 0.0,
    min_log_probability: Annotated[float | None, typer.Option(help="Mean per token, in nats.")] = None,
    near_duplicates: Annotated[float, typer.Option(help="Similarity that counts as the same.")] = 0.85,
) -> None:
    """Let a model write its own replay set, where the data it was trained on is not there."""
    from slm_plugin.replay_synthesis.options import SynthesisOptions
    from slm_plugin.strict import parse

    given = {
        "model": model,
        "adapter": adapter,
        "stage": stage,
        "rows": rows,
        "output": output,
        "name": name or f"own_{stage}",
        "prompts": prompts,
        "engine": engine,
        "seed": seed,
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "attempts": attempts,
        "limits": {
            "min_tokens": min_tokens,
            "max_tokens": max_tokens,
            "max_repeats": max_repeats,
            "max_unit_run": max_unit_run,
            "max_word_errors": max_word_errors,
            "min_log_probability": min_log_probability,
            "near_duplicates": near_duplicates,
        },
    }
    typer.echo(run(parse(SynthesisOptions, given, _WHERE)))


def run(options: SynthesisOptions) -> str:
    """Check, load, write, and return what was done in one line.

    Raises:
        SlmError: Whatever is wrong with options, model, prompts or output folder.
    """
    from slm_plugin.generation.engines import make_engine
    from slm_plugin.generation.model import load_speaker
    from slm_plugin.plugins import Registry
    from slm_plugin.replay_synthesis.output import check_output, write
    from slm_plugin.replay_synthesis.synthesise import check, synthesise

    check(options)
    check_output(options)
    speaker = load_speaker(options.model, options.adapter)
    engine = make_engine(options.engine, options.model, options.adapter)
    try:
        found = synthesise(options, speaker, engine, Registry.load(), typer.echo)
    finally:
        engine.close()
    path = write(options, found, engine.name)
    dropped = ", ".join(f"{reason} {n}" for reason, n in sorted(found.dropped.items())) or "none"
    return f"{path}: {len(found.rows)} of {options.rows} rows, {found.asked} asked for, dropped: {dropped}"
