"""Claim: 10,000 damaged inputs of each kind give no 500, leave no task or file behind, and memory flat.

    nice python benchmarks/fuzz.py                       # about five minutes
    python benchmarks/fuzz.py --number 200 --seed 7      # a short run of other inputs

The gateway runs in a child process, over a fake engine and a fake codec. It receives five kinds of input, each a
valid one with random mutations: HTTP requests, WebSocket frames and realtime events, multipart forms, audio files
(WAV, FLAC, Ogg, MP3; as an upload and in a chat message), and folders of adapters, which the gateway takes in or
refuses while it serves. At most 16 are in flight. Meanwhile another client polls readiness and liveness. After each
kind the gateway counts its tasks and open files; its resident memory after the inputs is compared with that after a
warm-up by the same kind. A status above 499 other than 503 and 504, a WebSocket close code 1011 and an `error` event
of type `server_error` are failures, and so is a well-formed request without an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ctypes
import gc
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("http", "websocket", "multipart", "audio", "adapter")
IN_FLIGHT = 16
ANSWER_S = 20.0
"""Seconds after which an input without an end of its connection is a hang."""

HOSTS = b"host: localhost\r\n"
HELLO = {"role": "user", "content": "hello"}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
STRANGE: list[Any] = [
    None, True, -1, 0, 0.5, 2**63, -(10**300), float("nan"), float("inf"), "", "\x00", "\ud800",
    "\u202e<|3|><|eot_id|>",
    "x" * 20_000, [], {}, [[]], [0] * 3000, {"type": []}, {"a": {"b": {"c": []}}}, [None], "null", "../../etc/passwd",
    "%s%n", 10**4000, "\U0010ffff" * 50,
]  # fmt: skip


@dataclass
class Result:
    """What came of one kind."""

    kind: str
    number: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    probes: Counter[str] = field(default_factory=Counter)
    slowest_probe_s: float = 0.0
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def lost(self) -> dict[str, int]:
        """Tasks and files that were there at the end and not at the start."""
        return {name: self.end[name] - self.start[name] for name in ("tasks", "files")}

    @property
    def growth_bytes(self) -> int:
        """Growth of the resident memory in bytes."""
        return self.end["memory"] - self.start["memory"]

    @property
    def all_alive(self) -> bool:
        """Whether every probe of readiness and liveness was answered 200."""
        return set(self.probes) == {"/health 200", "/health/live 200"}


def mutate_json(rng: random.Random, value: Any) -> Any:
    """Return a copy with one place replaced, removed, repeated or wrapped."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        copy = dict(value)
        key = rng.choice(list(copy))
        act = rng.random()
        if act < 0.1:
            del copy[key]
        elif act < 0.2:
            copy[rng.choice(["x", "", "type", "model", "stream", "\x00", "n", "tools", "store"])] = rng.choice(STRANGE)
        else:
            copy[key] = mutate_json(rng, copy[key])
        return copy
    if isinstance(value, list) and value and rng.random() < 0.85:
        items = list(value)
        place = rng.randrange(len(items))
        act = rng.random()
        if act < 0.1:
            del items[place]
        elif act < 0.2:
            items += [items[place]] * rng.choice([1, 10, 300])
        else:
            items[place] = mutate_json(rng, items[place])
        return items
    return rng.choice([*STRANGE, [value], {"value": value}, str(value)])


def mutate_bytes(rng: random.Random, raw: bytes) -> bytes:
    """Return a copy with bits flipped, cut, spliced, repeated or with bytes put in."""
    found = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        place = rng.randrange(len(found) + 1)
        act = rng.randrange(7)
        if act == 0 and found:
            for _ in range(rng.choice([1, 4, 30])):
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        elif act == 1:
            del found[place:]
        elif act == 2:
            del found[place : place + rng.choice([1, 10, 200])]
        elif act == 3:
            found[place:place] = found[: rng.randrange(len(found) + 1)][:5000]
        elif act == 4:
            found[place:place] = rng.choice(
                [
                    b"\xff\xfe",
                    b"\x00",
                    b"\r\n",
                    b"\r\n\r\n",
                    b'"',
                    b"[" * 3000,
                    b'{"a":' * 3000,
                    b"9" * 6000,
                    b",",
                    b"\xed\xa0\x80",
                ]
            )
        elif act == 5:
            found[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
        else:
            found[place:place] = rng.randbytes(rng.choice([1, 16, 400]))
    return bytes(found)


def text_of(rng: random.Random, value: Any) -> bytes:
    """Write JSON: mutated as a value, as text, with a key twice, or in another encoding."""
    act = rng.random()
    if act < 0.6:
        for _ in range(rng.choice([1, 1, 2, 4])):
            value = mutate_json(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8 or act < 0.6).encode("utf-8", "surrogatepass")
    if 0.6 <= act < 0.8:
        text = mutate_bytes(rng, text)
    elif 0.8 <= act < 0.9:
        text = text.replace(b"{", b'{"model": "fake", "model": [], "type": 5, ', 1)
    elif act >= 0.97:
        text = text.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"]))
    return text


def recordings() -> dict[str, bytes]:
    """Return 0.4 s of a tone in each container."""
    wave_N = 0.3 * np.sin(2 * np.pi * 440 * np.arange(6400) / 16_000)
    found = {}
    for form in ("WAV", "FLAC", "OGG", "MP3"):
        file = io.BytesIO()
        soundfile.write(file, wave_N, 16_000, format=form)
        found[form.lower()] = file.getvalue()
    return found


FILES = recordings()


def envelope(
    rng: random.Random, path: str, content: bytes, kind: bytes = b"application/json", method: str = "POST"
) -> bytes:
    """Write a request, whole or in chunks."""
    head = f"{method} {path} HTTP/1.1\r\n".encode() + HOSTS + b"connection: close\r\ncontent-type: " + kind + b"\r\n"
    if rng.random() < 0.15:
        size = rng.choice([1, 100, 4096]) if len(content) < 5000 else 4096
        parts = [content[i : i + size] for i in range(0, len(content), size)]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(content) + content


def http_input(rng: random.Random) -> tuple[bytes, bool]:
    """Return the bytes of a request, and whether it is well-formed HTTP."""
    recorded = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(FILES["ogg"]).decode(), "format": "ogg"}}
    ]
    path, valid = rng.choice(
        [
            ("/v1/chat/completions", {"model": "fake", "messages": [HELLO], "temperature": 1, "max_tokens": 20}),
            ("/v1/chat/completions", {"model": "fake", "messages": [HELLO, HELLO], "stream": True, "seed": 1}),
            ("/v1/chat/completions", {"model": "fake", "messages": [HELLO], **SPOKEN}),
            ("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": recorded}]}),
            ("/v1/audio/speech", {"model": "fake", "input": "hello", "voice": "alloy", "response_format": "wav"}),
        ]
    )
    act = rng.random()
    if act < 0.6:
        return envelope(rng, path, text_of(rng, valid)), True
    if act < 0.7:
        method = rng.choice(["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "TRACE"])
        path = rng.choice(
            ["/", "/health", "/v1/models", "/v1/models/%00", "/v1/models/../x", "/web/..%2f", "/metrics", path, "/%ff"]
        )
        return envelope(rng, path, b"", method=method), True
    raw = envelope(rng, path, json.dumps(valid).encode())
    if act < 0.85:
        strange = rng.choice(
            [
                b"origin: http://[\r\n", b"host: [::1\r\n", b"content-length: -5\r\n", b"content-length: 7\r\n",
                b"transfer-encoding: gzip, chunked\r\n", b"content-encoding: gzip\r\n",
                b"authorization: Bearer \xff\r\n",
                b"traceparent: 00-x-y-z\r\n", b"x-request-id: " + b"i" * 3000 + b"\r\n", b"expect: 100-continue\r\n",
                b"upgrade: websocket\r\n", b"upgrade: h2c\r\n", b"x: " + b"y" * 70_000 + b"\r\n", b": empty\r\n",
                b"content-type: application/json; charset=punycode\r\n", b"accept-encoding: \x00\r\n",
                b"x: a\r\n folded\r\n",
                b"origin: null\r\n", b"access-control-request-method: POST\r\n", b"cookie: " + b"a=b;" * 500 + b"\r\n",
            ]
        )  # fmt: skip
        return raw.replace(HOSTS, HOSTS + strange, 1), False
    if act < 0.9:
        # several requests on one connection, the last one cut
        return (raw.replace(b"connection: close\r\n", b"") * 3)[: rng.randrange(len(raw) * 3)], False
    return mutate_bytes(rng, raw), False


def multipart_input(rng: random.Random) -> tuple[bytes, bool]:
    """Return the bytes of a transcription request whose form is damaged, and whether it is well-formed HTTP."""
    boundary = rng.choice([b"XX", b"-" * 70, b"a'()+_,-./:=?"])
    fields: list[tuple[bytes, bytes]] = [
        (b'name="model"', b"fake"), (b'name="language"', b"en"), (b'name="temperature"', b"0"),
        (b'name="file"; filename="a.wav"\r\ncontent-type: audio/wav', FILES["wav"][:3000]),
    ]  # fmt: skip
    for _ in range(rng.choice([0, 1, 2])):
        place = rng.randrange(len(fields))
        head, value = fields[place]
        fields[place] = rng.choice(
            [
                (head, mutate_bytes(rng, value)), (mutate_bytes(rng, head), value), (head, b""), (head, b"9" * 30_000),
                (head + b"; charset=punycode", value), (head + b"\r\ncontent-transfer-encoding: base64", value),
                (head + b"\r\ncontent-type: text/plain; charset=utf-7", value), (b'name="_charset_"', b"punycode"),
                (b'name="file"', value), (b'name="response_format"', rng.choice([b"verbose_json", b"srt", b"\xff"])),
                (b'name="stream"', rng.choice([b"true", b"maybe"])), (head.replace(b'"', b""), value),
                (b"filename*=utf-8''%ff; " + head, value), (b'name="timestamp_granularities[]"', b"word"),
            ]
        )  # fmt: skip
    if rng.random() < 0.2:
        fields += [rng.choice(fields)] * rng.choice([1, 2, 50, 1500])
    parts = [b"--%s\r\ncontent-disposition: form-data; %s\r\n\r\n%s\r\n" % (boundary, *one) for one in fields]
    content = b"".join(parts) + b"--" + boundary + b"--\r\n"
    if rng.random() < 0.3:
        content = mutate_bytes(rng, content)
    kind = b"multipart/form-data; boundary=" + boundary
    if rng.random() < 0.3:
        kind = rng.choice(
            [
                kind + b"; charset=punycode", kind + b"; charset=\xff", b"multipart/form-data",
                b"multipart/form-data; boundary=",
                b'multipart/form-data; boundary="XX', b"multipart/mixed; boundary=XX",
                b"application/x-www-form-urlencoded",
                b"multipart/form-data; boundary=" + b"b" * 5000, b"", kind + b"; boundary=YY", b"audio/wav",
            ]
        )  # fmt: skip
    return envelope(rng, "/v1/audio/transcriptions", content, kind), True


def audio_input(rng: random.Random) -> tuple[bytes, bool]:
    """Return a request with a damaged recording, in a form or in a chat message."""
    form = rng.choice(list(FILES))
    raw = mutate_bytes(rng, FILES[form])
    if rng.random() < 0.15:
        raw = raw[: rng.randrange(200)] + FILES[rng.choice(list(FILES))][rng.randrange(200) :]
    named = form if rng.random() < 0.8 else rng.choice(["wav", "mp3", "flac", "ogg", "opus", "pcm16", "aiff"])
    if rng.random() < 0.5:
        data = base64.b64encode(raw).decode()
        content = [{"type": "input_audio", "input_audio": {"data": data, "format": named}}]
        body = {"model": "fake", "messages": [{"role": "user", "content": content}], "stream": rng.random() < 0.3}
        return envelope(rng, "/v1/chat/completions", json.dumps(body).encode()), True
    part = b'--XX\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    content_bytes = (
        part % (b"model", b"", b"fake") + part % (b"file", b'; filename="a.%s"' % named.encode(), raw) + b"--XX--\r\n"
    )
    return envelope(rng, "/v1/audio/transcriptions", content_bytes, b"multipart/form-data; boundary=XX"), True


VOICE_ACTIVITY = {
    "type": "session.update",
    "session": {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}},
}


def frame(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    """Write a client's frame, masked by zeros."""
    n = len(payload)
    length = bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack("!H", n) if n < 2**16 else b"\xff" + n.to_bytes(8)
    return bytes([0x80 * final | opcode]) + length + bytes(4) + payload


def websocket_input(rng: random.Random) -> bytes:
    """Return the frames of a session."""
    turn = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    silence = base64.b64encode(bytes(4800)).decode()
    events: list[Any] = [
        {
            "type": "session.update",
            "session": {"type": "realtime", "output_modalities": ["text"], "instructions": "be kind"},
        },
        {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}},
        VOICE_ACTIVITY,
        {"type": "conversation.item.create", "item": {"id": "i", **turn}},
        {"type": "conversation.item.create", "item": turn, "previous_item_id": "i"},
        {"type": "conversation.item.retrieve", "item_id": "i"},
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 100},
        {"type": "conversation.item.delete", "item_id": "i"},
        {"type": "input_audio_buffer.append", "audio": silence},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "response.create", "response": {"output_modalities": ["audio"], "max_output_tokens": 20}},
        {"type": "response.create"},
        {"type": "response.cancel"},
    ]
    sent = b""
    for _ in range(rng.randint(1, 8)):
        event = rng.choice(events)
        text = json.dumps(event).encode() if rng.random() < 0.4 else text_of(rng, event)
        act = rng.random()
        if act < 0.75:
            sent += frame(text)
        elif act < 0.85:
            cut = rng.randrange(len(text) + 1)
            between = frame(b"x" * rng.choice([0, 125]), 9) if rng.random() < 0.5 else b""
            sent += frame(text[:cut], final=False) + between + frame(text[cut:], 0)
        elif act < 0.92:
            sent += frame(
                text[: rng.choice([0, 5, 125, 200])], rng.choice([0, 2, 3, 7, 8, 9, 10, 11, 15]), rng.random() < 0.8
            )
        else:
            sent += mutate_bytes(rng, frame(text))
    return sent + (
        frame(struct.pack("!H", rng.choice([1000, 1001, 1005, 0, 4000, 65_535])), 8) if rng.random() < 0.7 else b""
    )


CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none", "use_dora": False,
    "alpha_pattern": {}, "rank_pattern": {}, "modules_to_save": None, "use_rslora": False, "fan_in_fan_out": False,
    "layers_to_transform": None, "trainable_token_indices": None, "base_model_name_or_path": "base",
    "task_type": "CAUSAL_LM",
}  # fmt: skip
CARD = {
    "kind": "adapter",
    "units": {"count": 5, "first_id": 300},
    "base": {"fingerprint": "0" * 12},
    "versions": {"peft": "0.1"},
}


def adapter_input(rng: random.Random, weights: bytes, folder: Path) -> None:
    """Write a folder of an adapter of which one file is damaged."""
    target = rng.random()
    folder.mkdir()
    config = json.dumps(CONFIG).encode()
    config = text_of(rng, CONFIG) if target < 0.45 else config
    (folder / "adapter_config.json").write_bytes(config)
    if 0.45 <= target < 0.65 or rng.random() < 0.05:
        (folder / "slm.json").write_bytes(text_of(rng, CARD))
    if target >= 0.65:
        n_header = struct.unpack("<Q", weights[:8])[0]
        if rng.random() < 0.6:
            header = text_of(rng, json.loads(weights[8 : 8 + n_header]))
            weights = struct.pack("<Q", rng.choice([len(header)] * 9 + [2**40])) + header + weights[8 + n_header :]
        else:
            weights = mutate_bytes(rng, weights)
    if rng.random() < 0.97:
        (folder / "adapter_model.safetensors").write_bytes(weights)


@dataclass
class Client:
    """Sends inputs to a gateway.

    Args:
        address: Host and port.
        result: Receives the outcomes.
    """

    address: tuple[str, int]
    result: Result

    async def exchange(self, raw: bytes, leaves: bool, first: bytes = b"") -> bytes:
        """Send bytes, and read until the gateway ends the connection.

        Raises:
            TimeoutError: It does not.
        """
        reader, writer = await asyncio.open_connection(*self.address)
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_S):
                if first:
                    # a client may send frames only after the handshake
                    writer.write(first)
                    answer = await reader.readuntil(b"\r\n\r\n")
                writer.write(raw)
                while not leaves and (read := await reader.read(2**16)):
                    answer += read
        except (ConnectionError, asyncio.IncompleteReadError):
            # the answer may have come all the same
            pass
        finally:
            writer.transport.abort()
        return answer

    async def http(self, raw: bytes, well_formed: bool, leaves: bool) -> None:
        """Send a request."""
        try:
            answer = await self.exchange(raw, leaves)
        except TimeoutError:
            self._fail("hang", raw)
            return
        statuses = [found[:3] for found in answer.split(b"HTTP/1.1 ")[1:]]
        status = statuses[-1].decode("latin-1") if statuses else ("left" if leaves else "closed")
        self.result.outcomes[status] += 1
        if any(found[:1] == b"5" and found not in (b"503", b"504") for found in statuses) or b"server_error" in answer:
            self._fail(status, raw, answer)
        elif status == "closed" and well_formed:
            self._fail("no answer", raw)

    async def websocket(self, raw: bytes, leaves: bool) -> None:
        """Open a session and send frames."""
        shake = (
            b"GET /v1/realtime?model=fake HTTP/1.1\r\n" + HOSTS + b"upgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        try:
            answer = await self.exchange(raw, leaves, shake)
        except TimeoutError:
            self._fail("hang", raw)
            return
        status = "left" if leaves else answer[9:12].decode("latin-1") or "closed"
        code = close_code(answer.partition(b"\r\n\r\n")[2])
        self.result.outcomes[f"{status} {code or ''}".strip()] += 1
        if status[:1] == "5" or code == 1011 or b'"server_error"' in answer:
            self._fail(f"{status} {code}", raw, answer)

    def _fail(self, what: str, raw: bytes, answer: bytes = b"") -> None:
        self.result.failures.append(f"{what}: {raw[:600]!r} ... {answer[-400:]!r}")


def close_code(stream: bytes) -> int | None:
    """Return the code of the close frame in a server's frames."""
    place = 0
    while place + 2 <= len(stream):
        opcode, n = stream[place] & 15, stream[place + 1] & 127
        place += 2
        if n >= 126:
            size = 2 if n == 126 else 8
            n = int.from_bytes(stream[place : place + size])
            place += size
        if opcode == 8:
            return int.from_bytes(stream[place : place + 2]) if n >= 2 else 1005
        place += n
    return None


class Fuzzer:
    """Runs kinds of inputs against one gateway.

    Args:
        address: Host and port of the gateway.
        experts: Its folder of adapters.
        weights: Weights of a valid adapter.
        seed: Of the inputs.
    """

    def __init__(self, address: tuple[str, int], experts: Path, weights: bytes, seed: int) -> None:
        self.address = address
        self.experts = experts
        self.weights = weights
        self.seed = seed
        self.control = httpx.AsyncClient(base_url="http://{}:{}".format(*address), timeout=60)

    async def held(self, most: dict[str, int] | None = None) -> dict[str, int]:
        """Return tasks, open files and resident bytes of the gateway at rest.

        Args:
            most: Tasks and files to wait for, for as long as any timeout of the gateway lasts; without it the lowest
                of 1.5 s are returned.
        """
        found: list[dict[str, int]] = []
        for _ in range(100 if most else 10):
            await asyncio.sleep(0.15)
            found.append((await self.control.get("/fuzz/held")).json())
            if most and all(found[-1][name] <= most[name] for name in ("tasks", "files")):
                break
        return found[-1] if most else min(found, key=lambda one: (one["tasks"], one["files"]))

    async def start_workers(self) -> None:
        """Send inputs to every worker: their tasks and files begin with their first work, and stay."""
        for kind in ("http", "audio"):
            await self._send(kind, 100, Result(kind), random.Random(self.seed))
        events = [
            VOICE_ACTIVITY,
            {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(48_000)).decode()},
        ]
        frames = b"".join(frame(json.dumps(event).encode()) for event in events)
        client = Client(self.address, Result("websocket"))
        await asyncio.gather(*(client.websocket(frames, False) for _ in range(IN_FLIGHT)))

    async def run(self, kind: str, number: int) -> Result:
        """Send inputs of a kind."""
        warm = Result(kind)
        rng = random.Random(f"{self.seed} {kind}")
        await self._send(kind, max(20, number // 5), warm, rng)
        result = Result(kind, number, start=await self.held())
        result.failures += warm.failures
        probing = asyncio.create_task(self._probe(result))
        began = time.monotonic()
        await self._send(kind, number, result, rng)
        result.seconds = time.monotonic() - began
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        result.end = await self.held(result.start)
        return result

    async def _probe(self, result: Result) -> None:
        async with httpx.AsyncClient(base_url=self.control.base_url, timeout=10) as http:
            while True:
                for path in ("/health", "/health/live"):
                    began = time.monotonic()
                    try:
                        result.probes[
                            f"{path} {(await http.get(path, headers={'connection': 'close'})).status_code}"
                        ] += 1
                    except httpx.HTTPError as error:
                        result.probes[f"{path} {type(error).__name__}"] += 1
                    result.slowest_probe_s = max(result.slowest_probe_s, time.monotonic() - began)
                await asyncio.sleep(0.1)

    async def _send(self, kind: str, number: int, result: Result, rng: random.Random) -> None:
        if kind == "adapter":
            await self._adapters(number, result, rng)
            return
        client = Client(self.address, result)
        inputs = {"http": http_input, "multipart": multipart_input, "audio": audio_input}
        n_left = number

        async def worker() -> None:
            nonlocal n_left
            while n_left > 0:
                n_left -= 1
                leaves = rng.random() < 0.05
                if kind == "websocket":
                    await client.websocket(websocket_input(rng), leaves)
                else:
                    raw, well_formed = inputs[kind](rng)
                    await client.http(raw, well_formed, leaves)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))

    async def _adapters(self, number: int, result: Result, rng: random.Random) -> None:
        for first in range(0, number, IN_FLIGHT):
            n = min(IN_FLIGHT, number - first)
            for place in range(n):
                await asyncio.to_thread(adapter_input, rng, self.weights, self.experts / f"e{place}")
            answer = await self.control.get("/fuzz/scan")
            told = answer.json() if answer.status_code == 200 else {"failed": [answer.text]}
            result.outcomes["taken in"] += told.get("taken", 0)
            result.outcomes["refused"] += n - told.get("taken", 0)
            result.outcomes["refused by an exception not of ours"] += len(told.get("unforeseen", []))
            result.failures += told.get("failed", [])
            result.failures += [f"unforeseen: {one}" for one in told.get("unforeseen", [])]
            await asyncio.to_thread(_empty, self.experts)
            # without this scan a refused folder would leave the one of the same name before it in force
            await self.control.get("/fuzz/scan")


def _empty(folder: Path) -> None:
    import shutil

    for path in folder.iterdir():
        shutil.rmtree(path)


def serve(work: Path) -> None:
    """Serve the fake engine at a free port: run in a process of its own."""
    sys.path[:0] = [str(ROOT / "tests")]
    import logging
    import shutil
    from collections import deque
    from typing import cast

    import torch
    from safetensors.torch import save_file

    from slm_plugin.vocabulary import UnitVocabulary
    from slm_serve.app import create_app
    from slm_serve.backends.experts import ExpertBackend
    from slm_serve.backends.fake import FakeBackend
    from slm_serve.experts import Shelf
    from slm_serve.fakes import FakeCodec
    from slm_serve.ops.limits import Limits
    from slm_serve.ops.settings import Settings
    from slm_serve.server import Gateway, listen
    from slm_serve.service import Service
    from tiny_models import make_model, make_tokenizer

    class Door:
        async def load(self, version: str, folder: Path) -> None:
            pass

        async def unload(self, version: str) -> None:
            pass

    unforeseen: list[str] = []

    class Unforeseen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[2] is not None:
                import traceback

                unforeseen.append("".join(traceback.format_exception(*record.exc_info)[-4:]))

    logging.getLogger("slm_serve.experts").addHandler(Unforeseen())
    tokenizer = make_tokenizer(50)
    vocabulary = UnitVocabulary.find(tokenizer)
    assert vocabulary is not None
    tokens = tokenizer("what\n\nyes\n\nyes<|3|><|4|><|eot_id|>", add_special_tokens=False)["input_ids"]
    backend = FakeBackend([[[token] for token in tokens]])
    # the fake's own notes would grow
    backend.calls = cast(Any, deque(maxlen=1))
    limits = Limits(header_s=2, body_s=2, session_idle_s=0.5, session_s=5, stall_s=5)
    service = Service(tokenizer, vocabulary, FakeCodec(50), backend, "fake-codec", limits=limits)
    app = create_app(service, (), Settings(limits))
    (work / "experts").mkdir()
    base = make_model(work / "base", units=5)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.full((4, 64), 0.1), f"{name}.lora_B.weight": torch.ones(64, 4)}
    save_file(tensors, work / "weights")
    shelf = Shelf(
        work / "experts", base, work / "scratch", Door(), ExpertBackend(backend), frozenset({"base"}), service.metrics
    )

    @app.get("/fuzz/held")
    async def held() -> dict[str, int]:
        gc.collect()
        # glibc keeps freed pages for later; what is left after this is in use, or lies between what is in use
        ctypes.CDLL(None).malloc_trim(0)
        process = psutil.Process()
        n_files = len(os.listdir("/proc/self/fd"))
        return {"tasks": len(asyncio.all_tasks()), "files": n_files, "memory": process.memory_info().rss}

    @app.get("/fuzz/scan")
    async def scan() -> dict[str, Any]:
        unforeseen.clear()
        failed = []
        try:
            await shelf.scan(settled=True)
        except Exception as error:
            failed.append(repr(error))
        return {"taken": len(shelf._held), "failed": failed, "unforeseen": list(unforeseen)}

    with listen("127.0.0.1", 0) as listener:
        asyncio.run(Gateway(app, listener, "127.0.0.1", limits).serve(sockets=[listener]))
    shutil.rmtree(work / "scratch", ignore_errors=True)


async def fuzz(number: int, seed: int, kinds: tuple[str, ...] = KINDS) -> list[Result]:
    """Run kinds of inputs against a gateway in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with (work / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", folder], stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert process.stdout is not None
            while not (line := await asyncio.to_thread(process.stdout.readline)).startswith("ready "):
                if not line:
                    raise SystemExit((work / "log").read_text())
            port = int(line.rsplit(":", 1)[1])
            fuzzer = Fuzzer(("127.0.0.1", port), work / "experts", (work / "weights").read_bytes(), seed)
            await fuzzer.start_workers()
            results = []
            for kind in kinds:
                results.append(await fuzzer.run(kind, number))
                sys.stderr.write(f"{kind}: {results[-1].seconds:.0f} s\n")
            await fuzzer.control.aclose()
            log_text = (work / "log").read_text(errors="replace")
            if "Traceback" in log_text:
                # libmpg123 writes its own notes there
                lines = [line for line in log_text.splitlines() if not line.startswith(("Note:", "Warning:", "[src/"))]
                sys.stderr.write("\n".join(lines[-100:]) + "\n")
            return results
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def page(results: list[Result]) -> str:
    """Write the results as a table."""
    lines = [
        "| inputs | answers | failures | tasks, files left | memory at start, end | probes not 200 | slowest probe"
        " | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        outcomes = ", ".join(f"{name}: {n}" for name, n in result.outcomes.most_common(9) if n)
        memory = f"{result.start['memory'] / 2**20:.1f}, {result.end['memory'] / 2**20:.1f} MiB"
        n_bad = sum(n for name, n in result.probes.items() if not name.endswith(" 200"))
        lines.append(
            f"| {result.number} {result.kind} | {outcomes} | {len(result.failures)}"
            f" | {result.lost['tasks']}, {result.lost['files']} | {memory}"
            f" | {n_bad} of {result.probes.total()} | {1000 * result.slowest_probe_s:.0f} ms | {result.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    results = asyncio.run(fuzz(arguments.number, arguments.seed, tuple(arguments.kinds)))
    for result in results:
        for failure in result.failures[:20]:
            print(f"{result.kind}: {failure}\n")
    print(page(results))


if __name__ == "__main__":
    main()
