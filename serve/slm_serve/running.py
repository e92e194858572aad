"""Run everything that a server consists of, and end it in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import prometheus_client
import typer
from fastapi import FastAPI

from slm_plugin.errors import ConfigError, EngineError, Problem
from slm_serve.backends.experts import ExpertBackend
from slm_serve.backends.http import HttpBackend, name_of
from slm_serve.backends.protocol import Backend
from slm_serve.backends.replicas import Replicas
from slm_serve.background import Background
from slm_serve.engine import Engine
from slm_serve.experts import Shelf, VllmDoor
from slm_serve.ops.limits import DRAIN_S, Limits
from slm_serve.ops.metrics import Metrics
from slm_serve.server import Gateway, Tls
from slm_serve.service import Service
from slm_serve.supervisor import Supervisor

_LOG = logging.getLogger("slm_serve")


@dataclass(frozen=True)
class Experts:
    """Where experts come from.

    Attributes:
        folder: One folder per expert.
        scratch: A private folder for the copies that the engine reads.
    """

    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        listener: The bound socket.
        host: Name to show for it.
        make_app: Makes the application for an engine.
        engine: The engine to start; None where ``urls`` name running ones.
        urls: Addresses of running engines.
        limits: Bounds of connections.
        tls: Files of TLS.
        drain_s: Seconds that answers may go on after the signal to end.
        metrics_at: Address and port at which measurements are served alone.
        experts: Where experts come from; needs ``engine``.
        prepare_engine: Called with each engine before it is used.
    """

    listener: socket.socket
    host: str
    make_app: Callable[[Backend], FastAPI]
    engine: Engine | None = None
    urls: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    tls: Tls | None = None
    drain_s: int = DRAIN_S
    metrics_at: tuple[str, int] | None = None
    experts: Experts | None = None
    prepare_engine: Callable[[HttpBackend], None] | None = None


async def run(plan: Plan) -> None:
    """Run until SIGTERM or SIGINT; answers may then end in peace, a second signal ends them at once.

    Raises:
        EngineError: The engine does not start, or none answers.
    """
    stopping = asyncio.Event()
    server: Gateway | None = None

    def stop() -> None:
        if stopping.is_set() and server is not None:
            server.force_exit = True
        stopping.set()

    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    loop.set_exception_handler(_log_unhandled)
    with ExitStack() as stack:
        try:
            if plan.engine is not None and not await _start(plan.engine, stopping):
                return
            backend = _backend(plan)
            await _check(backend, plan)
            app = plan.make_app(backend)
            service: Service = app.state.service
            if plan.metrics_at is not None:
                stack.callback(_serve_metrics(service.metrics, *plan.metrics_at))
            await service.check()
            await _start_helpers(plan, backend, service)
            server = Gateway(app, plan.listener, plan.host, plan.limits, plan.tls, plan.drain_s)
            await _serve(server, plan.listener, stopping, service.background)
        finally:
            if plan.engine is not None:
                await asyncio.to_thread(plan.engine.stop)


async def _start(engine: Engine, stopping: asyncio.Event) -> bool:
    typer.echo(f"starting vLLM, which takes a minute on a CPU; its log: {engine.log_path}", err=True)
    engine.start()
    return await _unless(stopping, engine.ready())


async def _serve(server: Gateway, listener: socket.socket, stopping: asyncio.Event, background: Background) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
    # from here on the server releases what they work with
    await background.stop()
    server.should_exit = True
    stop.cancel()
    await serving


def _backend(plan: Plan) -> Backend:
    assert plan.engine is not None or plan.urls, "an engine or an address is needed"
    if plan.engine is not None:
        found = {plan.engine.url: plan.engine.backend()}
    else:
        found = {url: HttpBackend(url, os.environ.get("VLLM_API_KEY")) for url in plan.urls}
    for backend in found.values():
        if plan.prepare_engine is not None:
            plan.prepare_engine(backend)
    if len(found) > 1:
        return Replicas(_named(found))
    (only,) = found.values()
    return ExpertBackend(only) if plan.experts else only


def _named(backends: Mapping[str, Backend]) -> dict[str, Backend]:
    """Return the backends by the names of their addresses, which hold no password; equal names are numbered."""
    named: dict[str, Backend] = {}
    for url, backend in backends.items():
        name, number = name_of(url), 2
        while name in named:
            name, number = f"{name_of(url)} ({number})", number + 1
        named[name] = backend
    return named


async def _check(backend: Backend, plan: Plan) -> None:
    if plan.engine is None and not await backend.healthy():
        await backend.close()
        where = ", ".join(f"{urlsplit(url).scheme}://{name_of(url)}" for url in plan.urls)
        raise EngineError(f"no vLLM server answers at {where}; --vllm-url takes the address of a running one.")


async def _start_helpers(plan: Plan, backend: Backend, service: Service) -> None:
    """Start what runs beside the server: the engine's supervisor, the experts, the end of expired answers."""
    metrics, background = service.metrics, service.background
    background.start("expiry", service.history.expire)
    if isinstance(backend, Replicas):
        for member in backend.members:
            # bound now: the loop's variable goes on
            metrics.replica(member.name, lambda member=member: float(member.running))  # type: ignore[misc]
    if plan.engine is None:
        return
    if plan.experts is None:
        background.start("engine", Supervisor(plan.engine, backend, metrics).run)
        return
    assert isinstance(backend, ExpertBackend), "experts need a backend that knows them"
    reserved = frozenset(card.id for card in await backend.models())
    shelf = Shelf(
        plan.experts.folder,
        Path(plan.engine.model),
        plan.experts.scratch,
        VllmDoor(plan.engine.url, plan.engine.key),
        backend,
        reserved,
        metrics,
    )
    await shelf.begin()
    background.start("engine", Supervisor(plan.engine, backend, metrics, shelf.reload).run)
    background.start("experts", shelf.run)


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no task took, by its type and places: asyncio's own message repeats its words."""
    _LOG.error("a task has failed", exc_info=context.get("exception"))


def _serve_metrics(metrics: Metrics, host: str, port: int) -> Callable[[], None]:
    try:
        server, thread = prometheus_client.start_http_server(port, host, metrics.registry)
    except OSError as error:
        problem = Problem("--metrics-host/--metrics-port", f"{host}:{port} cannot be listened on ({error}).")
        raise ConfigError([problem]) from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


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
