"""A fake of a server with ``POST /v1/audio/speech``: it answers with the sound of units, and fails where told to."""

from __future__ import annotations

import io
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import soundfile

from prepare import world


class FakeSpeechServer:
    """Runs on 127.0.0.1 while used as a context; ``failures`` are the next statuses, ``requests`` what was asked."""

    def __init__(self) -> None:
        self.failures: list[int] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = fake.take(self.path, wish, self.headers.get("Authorization"))
                content = fake.sound(wish) if status == 200 else b'{"error": {"message": "no"}}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def take(self, path: str, wish: dict[str, Any], key: str | None) -> int:
        assert path == "/v1/audio/speech"
        self.requests.append(wish)
        self.keys.append(key)
        if "unspeakable" in wish["input"]:
            return 400
        return self.failures.pop(0) if self.failures else 200

    @staticmethod
    def sound(wish: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        seed = zlib.crc32(f"{wish['voice']} {wish['input']}".encode())
        soundfile.write(buffer, world.wave(seed, 4 + len(wish["input"])), 16_000, format="WAV")
        return buffer.getvalue()

    def __enter__(self) -> FakeSpeechServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
