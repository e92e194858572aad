"""The HTTP server: listens, says when it answers, ends kindly."""

from __future__ import annotations

import math
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from slm_plugin.errors import ConfigError, Problem
from slm_serve.ops.connections import protocol
from slm_serve.ops.limits import DRAIN_S, Limits
from slm_serve.ops.websockets import websocket_protocol


@dataclass(frozen=True)
class Tls:
    """Files of TLS, in PEM.

    Attributes:
        certificate: The chain, the server's own certificate first.
        key: Its private key.
    """

    certificate: Path
    key: Path

    def check(self) -> None:
        """Refuse files that do not work, before minutes of loading.

        Raises:
            ConfigError: They cannot be read, or do not belong together.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            where = "--tls-certificate/--tls-key"
            raise ConfigError(
                [Problem(where, f"{self.certificate} and {self.key} cannot be used ({error}).")]
            ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound already, so that a taken port is told before minutes of loading.

    Raises:
        ConfigError: The address cannot be bound.
    """
    listener: socket.socket | None = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError([Problem("--host/--port", f"{host}:{port} cannot be listened on ({error}).")]) from None
    return listener


class Gateway(uvicorn.Server):
    """Uvicorn without its signal handlers, that says when it answers.

    Args:
        app: What to serve.
        listener: The bound socket.
        host: Name to show for it.
        limits: Bounds of connections.
        tls: Files of TLS; without them HTTP is plain.
        drain_s: Seconds that answers may go on after ``should_exit``.
    """

    def __init__(
        self,
        app: FastAPI,
        listener: socket.socket,
        host: str,
        limits: Limits | None = None,
        tls: Tls | None = None,
        drain_s: int = DRAIN_S,
    ) -> None:
        limits = limits or Limits()
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                ws=websocket_protocol(limits),
                ws_max_size=limits.frame_bytes,
                # a few bytes of a compressed frame could become megabytes
                ws_per_message_deflate=False,
                http=protocol(limits),
                # uvicorn counts the connection that it decides about
                limit_concurrency=limits.connections + 1,
                # stock clients keep resting connections for 5 s: where a server does so too, the next request may
                # meet one that is being closed
                timeout_keep_alive=math.ceil(limits.header_s),
                server_header=False,
                timeout_graceful_shutdown=drain_s,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
        )
        name = f"[{host}]" if ":" in host else host
        self._address = f"{'https' if tls else 'http'}://{name}:{listener.getsockname()[1]}"

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``; signals are the caller's."""
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say so."""
        await super().startup(sockets)
        if self.started:
            sys.stdout.write(f"ready {self._address}\n")
            sys.stdout.flush()
