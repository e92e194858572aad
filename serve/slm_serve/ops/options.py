"""Options of ``slm serve`` beside the model: bounds, keys, engines, measurements."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

ENGINE = "Engine"
"""Heading of the options of vLLM; a heading has columns of its own, so long names need short neighbours."""

_BOUNDS, _ACCESS, _WATCH, _TRACES = "Bounds", "Access", "Observation", "Traces"


def _bound(text: str, least: float) -> typer.models.OptionInfo:
    return typer.Option(help=text, min=least, rich_help_panel=_BOUNDS)


MaxStreams = Annotated[int, _bound("Answers made at a time.", 1)]
MaxQueue = Annotated[int, _bound("Requests that wait for their turn; a further one is told 429.", 0)]
MaxSessions = Annotated[int, _bound("WebSocket sessions at a time.", 0)]
MaxClipSeconds = Annotated[float, _bound("Longest recording, in seconds.", 0.1)]
MaxBodyMib = Annotated[float, _bound("Largest request, in MiB.", 0.001)]
MaxDecodedMib = Annotated[float, _bound("Largest recording once decoded, in MiB.", 0.001)]
MaxUnits = Annotated[int, _bound("Most units of speech in one answer.", 1)]
StallSeconds = Annotated[float, _bound("Seconds that a client may read nothing of its answer.", 0.1)]
TotalSeconds = Annotated[float, _bound("Seconds from a request to the end of its answer.", 0.1)]
SessionSeconds = Annotated[float, _bound("Seconds that a WebSocket session may last.", 0.1)]
DrainSeconds = Annotated[int, _bound("Seconds that answers may go on after SIGTERM.", 0)]

TlsCertificate = Annotated[
    Path | None, typer.Option(help="Certificate chain in PEM: serve HTTPS.", rich_help_panel=_ACCESS)
]
TlsKey = Annotated[Path | None, typer.Option(help="Private key of the certificate.", rich_help_panel=_ACCESS)]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(help="Site, such as https://example.org, whose pages may use the server.", rich_help_panel=_ACCESS),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Name under which a server without keys answers, beside localhost, addresses and --host; * for all.",
        rich_help_panel=_ACCESS,
    ),
]
Web = Annotated[bool, typer.Option(help="Serve the page at /.", rich_help_panel=_ACCESS)]

MetricsPort = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help="Serve /metrics at this port instead of beside the API.", rich_help_panel=_WATCH
    ),
]
MetricsHost = Annotated[str, typer.Option(help="Address for --metrics-port.", rich_help_panel=_WATCH)]
OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        envvar="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        help="Send OpenTelemetry traces there, such as http://localhost:4318/v1/traces.",
        rich_help_panel=_TRACES,
    ),
]


class LogForm(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    """Least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogFormat = Annotated[LogForm, typer.Option(help="How log lines look.", rich_help_panel=_WATCH)]
LogLevel = Annotated[
    Level,
    typer.Option(help="Least level that is logged; info has a line for each request.", rich_help_panel=_WATCH),
]

VllmUrl = Annotated[
    list[str] | None,
    typer.Option(
        help="Use the vLLM server at this address instead of starting one; its key is VLLM_API_KEY. Given several"
        " times, the least busy one answers.",
        rich_help_panel=ENGINE,
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="Where spoken answers are kept for later turns: memory, sqlite:///FILE or redis://HOST:PORT/0; a"
        " temporary SQLite file by default. Servers that share one know each other's answers."
    ),
]
ExpertsFolder = Annotated[
    Path | None,
    typer.Option(
        "--experts",
        help="Folder of LoRA experts, one folder each; they are asked for by name, and may change.",
        rich_help_panel=ENGINE,
    ),
]
MaxExpertRank = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=512,
        metavar="RANK",
        help="Largest rank of an expert; that of those there by default.",
        rich_help_panel=ENGINE,
    ),
]
