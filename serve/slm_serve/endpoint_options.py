"""Options of the endpoint plugin: environment variables, for vLLM's command line has no room for others' options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from slm_plugin.errors import ConfigError, Problem, suggest
from slm_plugin.strict import Strict, parse
from slm_serve.ops.limits import DEFAULT, Limits

PREFIX = "SLM_SERVE_"
_MIB = 2**20
# Kubernetes tells every pod of a service that is called slm-serve by variables of these names
_KUBERNETES = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?")

REFUSED = {
    "model": "the plugin serves the --model of vLLM.",
    "host": "vLLM listens: give it --host.",
    "port": "vLLM listens: give it --port.",
    "vllm_url": "the engine is that of the plugin's own process; several replicas need the gateway, slm serve.",
    "engine_argument": "give it to vLLM itself.",
    "engine_log": "the engine's log is that of its process.",
    "interleave_processor": (
        "start vLLM with --logits-processors slm_serve.interleave.processor:InterleaveProcessor; the plugin sees it."
    ),
    "experts": (
        "experts that come and go need the gateway, slm serve --experts; adapters of vLLM's --lora-modules are"
        " answered for by their names."
    ),
    "max_expert_rank": "experts need the gateway, slm serve --experts; vLLM has --max-lora-rank.",
    "drain_seconds": "vLLM ends its answers itself: give it --shutdown-timeout.",
    "tls_certificate": "vLLM listens: give it --ssl-certfile.",
    "tls_key": "vLLM listens: give it --ssl-keyfile.",
    "metrics_port": "the measurements are on vLLM's own /metrics.",
    "metrics_host": "the measurements are on vLLM's own /metrics.",
}
"""Options of ``slm serve`` that the plugin does not have, and what to do instead."""


def _listed(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


Seconds = Annotated[float, Field(ge=0.1, allow_inf_nan=False)]
Mib = Annotated[float, Field(ge=0.001, allow_inf_nan=False)]


class EndpointOptions(Strict):
    """What ``slm serve`` calls by the same names as options."""

    # the environment holds text alone
    model_config = ConfigDict(strict=False)

    codec: str = Field(min_length=1)
    """Registered codec, or folder that a codec was saved to."""
    api_key_file: Path | None = None
    """File with one accepted key a line, asked for by every route of the process, vLLM's own too. Not together with
    vLLM's ``--api-key``."""
    store: str = "memory"
    """Where spoken answers are kept for later turns: ``memory``, ``sqlite:///FILE`` or ``redis://HOST:PORT/0``."""
    max_streams: int = Field(DEFAULT.streams, ge=1)
    """Answers made at a time; vLLM's own routes are not counted."""
    max_queue: int = Field(DEFAULT.queue, ge=0)
    """Requests that wait for their turn; a further one is told 429."""
    max_sessions: int = Field(DEFAULT.sessions, ge=0)
    """WebSocket sessions at a time."""
    max_clip_seconds: Seconds = DEFAULT.clip_s
    """Longest recording, in seconds."""
    max_body_mib: Mib = DEFAULT.body_bytes / _MIB
    """Largest request, in MiB."""
    max_decoded_mib: Mib = DEFAULT.decoded_bytes / _MIB
    """Largest recording once decoded, in MiB."""
    max_units: int = Field(DEFAULT.units, ge=1)
    """Most units of speech in one answer."""
    stall_seconds: Seconds = DEFAULT.stall_s
    """Seconds that a client may read nothing of its answer."""
    total_seconds: Seconds = DEFAULT.total_s
    """Seconds from a request to the end of its answer."""
    session_seconds: Seconds = DEFAULT.session_s
    """Seconds that a WebSocket session may last."""
    cors_origin: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """Sites, such as ``https://example.org``, whose pages may use our routes, with spaces or commas between; vLLM's
    ``--allowed-origins`` must let them in, too."""
    allowed_host: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("*",)
    """Names under which our routes answer without keys, with spaces or commas between; all by default, for vLLM's own
    routes have no such check."""
    web: bool = True
    """Serve the page at ``/``."""
    otlp_endpoint: str | None = None
    """Send OpenTelemetry traces of our routes there, such as ``http://localhost:4318/v1/traces``."""
    log_format: Literal["text", "json"] = "text"
    """How our log lines look; vLLM's look as vLLM says."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Least level that we log; ``info`` has a line for each request of ours."""

    @property
    def limits(self) -> Limits:
        """The bounds; those of connections are uvicorn's, which is vLLM's."""
        return Limits(
            clip_s=self.max_clip_seconds,
            body_bytes=int(self.max_body_mib * _MIB),
            decoded_bytes=int(self.max_decoded_mib * _MIB),
            units=self.max_units,
            streams=self.max_streams,
            queue=self.max_queue,
            sessions=self.max_sessions,
            stall_s=self.stall_seconds,
            total_s=self.total_seconds,
            session_s=self.session_seconds,
        )

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> EndpointOptions:
        """Return the options of an environment.

        Args:
            environment: All variables; those that do not begin with :data:`PREFIX` are others'.

        Raises:
            ConfigError: Lists every variable that is missing, unknown, wrong, or not the plugin's to have.
        """
        fields = {variable(name): name for name in cls.model_fields}
        refused = {variable(name): reason for name, reason in REFUSED.items()}
        problems, given = [], {}
        for name, value in sorted(environment.items()):
            if name in fields:
                given[fields[name]] = value
            elif not name.startswith(PREFIX) or _is_of_kubernetes(name, value):
                continue
            elif name in refused:
                problems.append(Problem(name, f"the plugin does not have it: {refused[name]}"))
            else:
                problems.append(Problem(name, f"unknown variable. {suggest(name, fields, 'Variables')}"))
        try:
            options = parse(cls, given, "")
        except ConfigError as error:
            problems += [Problem(variable(p.where.removeprefix(".")), p.what) for p in error.problems]
        if problems:
            raise ConfigError(problems)
        return options


def variable(option: str) -> str:
    """Return the name of an option's variable: ``SLM_SERVE_MAX_UNITS`` for ``max_units`` or ``--max-units``."""
    return PREFIX + option.removeprefix("--").replace("-", "_").upper()


def by_variable(error: ConfigError) -> ConfigError:
    """Return an error that names options of ``slm serve`` with the names of their variables instead."""
    return ConfigError(
        Problem(variable(p.where) if p.where.startswith("--") else p.where, p.what) for p in error.problems
    )


def _is_of_kubernetes(name: str, value: str) -> bool:
    short = name.removeprefix(PREFIX)
    # a person's SLM_SERVE_PORT holds a number
    return _KUBERNETES.fullmatch(short) is not None and (short != "PORT" or "://" in value)
