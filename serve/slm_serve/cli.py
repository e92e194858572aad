"""``slm serve``: vLLM, the gateway in front of it, and a clean end for both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm_plugin.errors import ConfigError, Problem, SlmError
from slm_serve.ops import options
from slm_serve.ops.limits import DEFAULT, DRAIN_S, Limits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from slm_plugin.vocabulary import UnitVocabulary
    from slm_serve.backends.http import HttpBackend

_MIB = 2**20


def serve(
    model: Annotated[str, typer.Option(help="Folder of an exported model with unit tokens.")],
    codec: Annotated[str, typer.Option(help="Registered codec, or folder that a codec was saved to.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    vllm_url: options.VllmUrl = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one accepted key a line; without it every key is accepted.")
    ] = None,
    engine_log: Annotated[
        Path | None,
        typer.Option(help="File for vLLM's output; without it a temporary one.", rich_help_panel=options.ENGINE),
    ] = None,
    interleave_processor: Annotated[
        bool,
        typer.Option(
            "--interleave-processor",
            help="Let the engine keep to interleave constraints itself, by a logits processor; without, tokens that"
            " break one are dropped. A server of --vllm-url must have been started with that processor.",
            rich_help_panel=options.ENGINE,
        ),
    ] = False,
    engine_argument: Annotated[
        list[str] | None,
        typer.Option(
            help="Further argument for vLLM, such as --engine-argument=--seed=1; give it again for more, such as"
            " --tensor-parallel-size=2.",
            rich_help_panel=options.ENGINE,
        ),
    ] = None,
    store: options.Store = None,
    experts: options.ExpertsFolder = None,
    max_expert_rank: options.MaxExpertRank = None,
    max_streams: options.MaxStreams = DEFAULT.streams,
    max_queue: options.MaxQueue = DEFAULT.queue,
    max_sessions: options.MaxSessions = DEFAULT.sessions,
    max_clip_seconds: options.MaxClipSeconds = DEFAULT.clip_s,
    max_body_mib: options.MaxBodyMib = DEFAULT.body_bytes / _MIB,
    max_decoded_mib: options.MaxDecodedMib = DEFAULT.decoded_bytes / _MIB,
    max_units: options.MaxUnits = DEFAULT.units,
    stall_seconds: options.StallSeconds = DEFAULT.stall_s,
    total_seconds: options.TotalSeconds = DEFAULT.total_s,
    session_seconds: options.SessionSeconds = DEFAULT.session_s,
    drain_seconds: options.DrainSeconds = DRAIN_S,
    tls_certificate: options.TlsCertificate = None,
    tls_key: options.TlsKey = None,
    cors_origin: options.CorsOrigin = None,
    allowed_host: options.AllowedHost = None,
    web: options.Web = True,
    metrics_port: options.MetricsPort = None,
    metrics_host: options.MetricsHost = "127.0.0.1",
    otlp_endpoint: options.OtlpEndpoint = None,
    log_format: options.LogFormat = options.LogForm.TEXT,
    log_level: options.LogLevel = options.Level.WARNING,
) -> None:
    """Serve a speech model through OpenAI's HTTP API.

    Prints `ready http://HOST:PORT` when requests will be answered.
    """
    # here, because every `slm --help` reads this file for the options
    import asyncio

    from slm_serve.app import create_app
    from slm_serve.engine import Engine, read_config
    from slm_serve.experts import engine_arguments
    from slm_serve.history import History
    from slm_serve.interleave.constraint import PROCESSOR
    from slm_serve.loading import load_parts
    from slm_serve.ops import logs
    from slm_serve.ops.auth import read_keys
    from slm_serve.ops.hosts import names_of
    from slm_serve.ops.settings import Settings
    from slm_serve.ops.store import open_store
    from slm_serve.ops.tracing import Tracing
    from slm_serve.running import Experts, Plan, run
    from slm_serve.scratch import LOG, scratch_folder
    from slm_serve.server import Tls, listen
    from slm_serve.service import Service

    limits = Limits(
        clip_s=max_clip_seconds,
        body_bytes=int(max_body_mib * _MIB),
        decoded_bytes=int(max_decoded_mib * _MIB),
        units=max_units,
        streams=max_streams,
        queue=max_queue,
        sessions=max_sessions,
        stall_s=stall_seconds,
        total_s=total_seconds,
        session_s=session_seconds,
    )
    try:
        _check(vllm_url, experts, tls_certificate, tls_key)
        logs.configure(log_format, log_level)
        keys = read_keys(api_key_file) if api_key_file else []
        tls = Tls(tls_certificate, tls_key) if tls_certificate and tls_key else None
        if tls is not None:
            tls.check()
        with listen(host, port) as listener, scratch_folder() as folder:
            read_config(model)
            tokenizer, vocabulary, speech = load_parts(model, codec)
            tracing = Tracing.to(otlp_endpoint) if otlp_endpoint else Tracing()
            hosts = (*names_of(host), *(allowed_host or ()))
            settings = Settings(limits, keys, cors_origin or (), hosts, metrics_port is None, web, tracing)
            history = History(store=open_store(store or f"sqlite:///{folder / 'answers.sqlite'}"))
            more, environment = list(engine_argument or []), {}
            if experts is not None:
                more = [*engine_arguments(experts, max_expert_rank), *more]
                environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
            if interleave_processor:
                more += ["--logits-processors", PROCESSOR]
            plan = Plan(
                listener,
                host,
                lambda backend: create_app(
                    Service(
                        tokenizer, vocabulary, speech, backend, codec, history=history, limits=limits, tracing=tracing
                    ),
                    settings=settings,
                ),
                None if vllm_url else Engine(model, engine_log or folder / LOG, more, environment),
                vllm_url or (),
                limits,
                tls,
                drain_seconds,
                None if metrics_port is None else (metrics_host, metrics_port),
                None if experts is None else Experts(experts, folder / "experts"),
                partial(_constrain, vocabulary, tokenizer) if interleave_processor else None,
            )
            asyncio.run(run(plan))
    except SlmError as error:
        typer.echo(f"slm serve: {error}", err=True)
        raise typer.Exit(1) from None


def _constrain(vocabulary: UnitVocabulary, tokenizer: PreTrainedTokenizerBase, engine: HttpBackend) -> None:
    """Let an engine's logits processor keep to interleave constraints."""
    engine.constrain(vocabulary, tokenizer.eos_token_id)


def _check(urls: list[str] | None, experts: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Refuse options that do not go together, all at once."""
    problems = []
    if experts is not None and not experts.is_dir():
        problems.append(Problem("--experts", f"{experts} is no folder; give one that holds a folder per expert."))
    if experts is not None and urls:
        problems.append(Problem("--experts", "experts need the engine that slm serve starts; leave --vllm-url out."))
    if (certificate is None) != (key is None):
        problems.append(Problem("--tls-certificate/--tls-key", "TLS needs both, the certificate and its key."))
    if problems:
        raise ConfigError(problems)


if __name__ == "__main__":
    typer.run(serve)
