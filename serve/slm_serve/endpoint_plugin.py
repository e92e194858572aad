"""Serve speech from vLLM's own process: a plugin of vLLM's OpenAI server, ``VLLM_PLUGINS=slm_serve``.

vLLM finds it by its entry point in the group ``vllm.endpoint_plugins``; its options are environment
variables (:mod:`slm_serve.endpoint_options`). Our routes take the place of vLLM's of the same path, all
others stay vLLM's.
"""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import prometheus_client
from fastapi import FastAPI

from slm_plugin.errors import ConfigError, Problem
from slm_serve.app import create_app
from slm_serve.backends.in_process import EngineClient, InProcessBackend
from slm_serve.endpoint_doors import House, Porter, doors
from slm_serve.endpoint_options import EndpointOptions, by_variable, variable
from slm_serve.engine import PLUGIN
from slm_serve.history import History
from slm_serve.interleave.constraint import PROCESSOR
from slm_serve.loading import load_parts
from slm_serve.ops import logs
from slm_serve.ops.auth import read_keys
from slm_serve.ops.settings import Settings
from slm_serve.ops.store import open_store
from slm_serve.ops.tracing import Tracing
from slm_serve.service import Service

if TYPE_CHECKING:
    from starlette.datastructures import State


class SlmServe:
    """vLLM's ``EndpointPlugin``: made once, before the server starts.

    What is wrong with the options is raised from :meth:`attach_router`, for vLLM only logs what the making of
    a plugin raises, and would serve without it.

    Attributes:
        name: What ``VLLM_PLUGINS`` calls it.
        required_tasks: vLLM loads it for models that generate.
    """

    name = PLUGIN
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._house = House()
        self._options: EndpointOptions | None = None
        self._settings = Settings()
        self._service: Service | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Put our routes in front of vLLM's.

        Args:
            app: vLLM's application.

        Raises:
            ConfigError: The options are wrong.
        """
        self._options = options = EndpointOptions.read(os.environ)
        logs.configure(options.log_format, options.log_level, uvicorn=False)
        try:
            keys = read_keys(options.api_key_file) if options.api_key_file else []
            tracing = Tracing.to(options.otlp_endpoint) if options.otlp_endpoint else Tracing()
        except ConfigError as error:
            raise by_variable(error) from None
        self._settings = Settings(
            options.limits,
            keys,
            options.cors_origin,
            options.allowed_host,
            metrics_here=False,
            web=options.web,
            tracing=tracing,
        )
        ours = doors(self._settings, self._house)
        # the first route that matches answers
        app.router.routes[:0] = ours
        if keys:
            app.add_middleware(Porter, api_keys=keys, doors=ours)
        self._close_with(app)

    async def init_state(self, engine_client: EngineClient | None, state: State, args: Namespace) -> None:
        """Load what our routes need.

        Args:
            engine_client: vLLM's client of its engine.
            state: vLLM's state, which knows the names that it serves.
            args: vLLM's command line.

        Raises:
            SlmError: The options do not fit vLLM's or the model, or the codec cannot be loaded.
        """
        options = self._options
        assert options is not None, "attach_router() comes first"
        assert engine_client is not None, "vLLM has no engine for a plugin that needs one"
        keys = _keys(args, self._settings.api_keys)
        _check_store(args, options)
        model = engine_client.model_config
        tokenizer, vocabulary, codec = load_parts(model.tokenizer, options.codec)
        try:
            history = History(store=open_store(options.store))
        except ConfigError as error:
            raise by_variable(error) from None
        backend = InProcessBackend(engine_client, state.openai_serving_models)
        self._service = service = Service(
            tokenizer,
            vocabulary,
            codec,
            backend,
            options.codec,
            history=history,
            limits=options.limits,
            tracing=self._settings.tracing,
        )
        if PROCESSOR in (model.logits_processors or ()):
            backend.constrain(vocabulary, service.end_id)
        # vLLM's /metrics shows everything that is registered here
        prometheus_client.REGISTRY.register(_collector(service))
        self._house.app = create_app(service, keys, self._settings)

    def _close_with(self, app: FastAPI) -> None:
        """Close our part when vLLM's application shuts down."""
        theirs = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[Any]:
            async with theirs(app) as state:
                try:
                    yield state
                finally:
                    await self._close()

        app.router.lifespan_context = lifespan

    async def _close(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            prometheus_client.REGISTRY.unregister(_collector(service))
            await service.close()
            # it sends what is left
            await asyncio.to_thread(self._settings.tracing.close)


def _collector(service: Service) -> Any:
    return service.metrics.registry


def _keys(args: Namespace, ours: Sequence[str]) -> Sequence[str]:
    """Return the keys that our routes ask for: those of our file, or vLLM's, so that answers belong to one of them."""
    given = [args.api_key] if isinstance(args.api_key, str) else args.api_key
    theirs = [key for key in (given or [os.environ.get("VLLM_API_KEY")]) if key]
    if ours and theirs:
        text = "vLLM has keys of its own, --api-key or VLLM_API_KEY; leave one of the two out."
        raise ConfigError([Problem(variable("api_key_file"), text)])
    return ours or theirs


def _check_store(args: Namespace, options: EndpointOptions) -> None:
    servers = getattr(args, "api_server_count", None) or 1
    if servers > 1 and options.store == "memory":
        text = f"{servers} API servers need a store that they share: sqlite:///FILE or redis://HOST:PORT/0."
        raise ConfigError([Problem(variable("store"), text)])
