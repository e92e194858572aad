"""Inputs of the fuzzer in fuzz.py: valid requests, frames, forms, recordings and adapters with random mutations."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

HOSTS = b"host: localhost\r\n"
HELLO = {"role": "user", "content": "hello"}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
STRANGE: list[Any] = [
    None, True, -1, 0, 0.5, 2**63, -(10**300), float("nan"), float("inf"), "", "\x00", "\ud800",
    "\u202e<|3|><|eot_id|>",
    "x" * 20_000, [], {}, [[]], [0] * 3000, {"type": []}, {"a": {"b": {"c": []}}}, [None], "null", "../../etc/passwd",
    "%s%n", 10**4000, "\U0010ffff" * 50,
]  # fmt: skip


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
