"""``slm serve``: vLLM, the gateway in front of it, and a clean end for both."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI

from slm_plugin.errors import ConfigError, EngineError, Problem, SlmError
from slm_serve.app import create_app
from slm_serve.backends.http import HttpBackend
from slm_serve.engine import Engine, read_config
from slm_serve.loading import load_parts
from slm_serve.service import Service

_DRAIN_S = 5


def serve(
    model: Annotated[str, typer.Option(help="Folder of an exported model with unit tokens.")],
    codec: Annotated[str, typer.Option(help="Registered codec, or folder that a codec was saved to.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    vllm_url: Annotated[
        str | None,
        typer.Option(help="Use the vLLM server at this address instead of starting one; its key is VLLM_API_KEY."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with one accepted key a line; without it every key is accepted.")
    ] = None,
    engine_log: Annotated[
        Path | None, typer.Option(help="File for vLLM's output; without it a temporary one.")
    ] = None,
    engine_argument: Annotated[
        list[str] | None, typer.Option(help="Further argument for vLLM, such as --engine-argument=--seed=1.")
    ] = None,
) -> None:
    """Serve a speech model through OpenAI's HTTP API.

    Prints `ready http://HOST:PORT` when requests will be answered.
    """
    folder = Path(tempfile.mkdtemp(prefix="slm-serve-"))
    log = engine_log or folder / "vllm.log"
    try:
        keys = read_keys(api_key_file) if api_key_file else []
        with listen(host, port) as listener:
            read_config(model)
            tokenizer, vocabulary, speech = load_parts(model, codec)
            asyncio.run(
                _run(
                    listener,
                    host,
                    lambda backend: create_app(Service(tokenizer, vocabulary, speech, backend, codec), keys),
                    None if vllm_url else Engine(model, log, engine_argument or []),
                    vllm_url,
                )
            )
    except SlmError as error:
        typer.echo(f"slm serve: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_keys(path: Path) -> list[str]:
    """Return the keys of a file, one a line; empty lines and lines that begin with ``#`` are passed over.

    Raises:
        ConfigError: The file cannot be read, or holds no key.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("--api-key-file", f"{path} cannot be read ({error}).")]) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError([Problem("--api-key-file", f"{path} holds no key; write one a line.")])
    return keys


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound already, so that a taken port is told before minutes of loading.

    Raises:
        ConfigError: The address cannot be bound.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError([Problem("--host/--port", f"{host}:{port} cannot be listened on ({error}).")]) from None
    return listener


async def _run(
    listener: socket.socket,
    host: str,
    make_app: Callable[[HttpBackend], FastAPI],
    engine: Engine | None,
    url: str | None,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    try:
        if engine is not None:
            typer.echo(f"starting vLLM, which takes a minute on a CPU; its log: {engine.log_path}", err=True)
            engine.start()
            if not await _unless(stopping, engine.ready()):
                return
            backend = engine.backend()
        else:
            assert url is not None, "an engine or an address is needed"
            backend = HttpBackend(url, os.environ.get("VLLM_API_KEY"))
            await _check(backend)
        server = Gateway(make_app(backend), listener, host)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stop.cancel()
        await serving
    finally:
        if engine is not None:
            await asyncio.to_thread(engine.stop)


async def _check(backend: HttpBackend) -> None:
    if not await backend.healthy():
        await backend.close()
        raise EngineError(f"no vLLM server answers at {backend.url}; --vllm-url takes the address of a running one.")


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Wait for some work; return False, with the work cancelled, when asked to stop first."""
    task = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if task.done():
        await task
        return True
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return False


class Gateway(uvicorn.Server):
    """Uvicorn without its signal handlers, that says when it answers.

    Args:
        app: What to serve.
        listener: The bound socket.
        host: Name to show for it.
    """

    def __init__(self, app: FastAPI, listener: socket.socket, host: str) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=_DRAIN_S)
        )
        name = f"[{host}]" if ":" in host else host
        self._address = f"http://{name}:{listener.getsockname()[1]}"

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``; signals are the caller's."""
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(f"ready {self._address}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    typer.run(serve)
