"""Doors from vLLM's application to ours: a request for one of our routes goes through all of our layers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from slm_serve.app import routers
from slm_serve.ops.auth import KeyCheck
from slm_serve.ops.settings import Settings

_LOG = logging.getLogger("slm_serve")


class House:
    """Our application, once it is built: its routes are known before the engine that it needs.

    Attributes:
        app: The application.
    """

    def __init__(self) -> None:
        self.app: ASGIApp | None = None


class Door(BaseRoute):
    """A route of vLLM's application that leads to the same route of ours, bounds, keys and errors included.

    Args:
        route: Ours.
        house: Where it leads.
    """

    def __init__(self, route: BaseRoute, house: House) -> None:
        self._route = route
        self._house = house
        # vLLM lists its routes, and measures requests by them
        self.path: str = getattr(route, "path", "")
        self.methods: Any = getattr(route, "methods", None)
        self.endpoint: Any = getattr(route, "endpoint", None)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether our route answers a request; what it finds in the path is looked up again behind the door."""
        return self._route.matches(scope)[0], {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Have no address: nothing of vLLM's refers to our routes."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let our application answer."""
        assert self._house.app is not None, "a request came before the server was ready"
        try:
            # a copy, for our application writes its own name and routes to it
            await self._house.app(dict(scope), receive, send)
        except Exception:
            # our application has answered; vLLM's would answer again and log words that may be a client's
            _LOG.exception("a request has failed")


def doors(settings: Settings, house: House) -> list[Door]:
    """Return a door for each of our routes."""
    return [Door(route, house) for router in routers(settings) for route in router.routes]


class Porter:
    """Asks for a key at vLLM's own routes, in front of vLLM's application; ours ask behind their doors.

    Args:
        app: vLLM's.
        api_keys: Keys that are let in.
        doors: Ways to our routes.
    """

    def __init__(self, app: ASGIApp, api_keys: Sequence[str], doors: Sequence[Door]) -> None:
        self._app = app
        self._checked = KeyCheck(app, api_keys)
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401."""
        is_ours = any(door.matches(scope)[0] is not Match.NONE for door in self._doors)
        await (self._app if is_ours else self._checked)(scope, receive, send)
