"""Claim: 32 concurrent spoken answers are held for ten minutes on two cores; nothing is lost, memory is flat.

    python benchmarks/load.py --minutes 10                                # the gateway alone, over a fake engine
    python benchmarks/load.py --minutes 10 --model DIR --codec DIR        # `slm serve` with vLLM
    python benchmarks/load.py --minutes 10 --url http://127.0.0.1:8000    # a server that runs; memory is not read

    --sentences examples/tiny/data/eval_speech.jsonl --questions examples/tiny/audio    # for the model of `make demo`

Every client asks for a spoken answer over and over, streamed, and checks that it is complete: a finish, an end,
as many samples as its units make. With the fake engine the words and the pitch must be those that were asked for.
A trained model is asked what it was trained for: to speak sentences, and spoken questions in turn with them.
Memory and open descriptors are those of the gateway's process, read every second; the growth of memory is that of a
line through the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil

from slm_plugin.stages.tts import speaking_instruction

RATE_HZ = 24_000
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Tally:
    """What the clients saw."""

    answers: int = 0
    silent: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    first_s: list[float] = field(default_factory=list)
    gaps: int = 0
    sound_s: float = 0.0
    tokens: int = 0


async def ask(
    http: httpx.AsyncClient, model: str, content: str | list[dict[str, Any]], tally: Tally, max_tokens: int
) -> None:
    """Ask once, and judge the answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "pcm16"},
        "max_tokens": max_tokens,
    }
    began, first, n_bytes, finish, usage, done = time.monotonic(), None, 0, None, None, False
    words = ""
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            tally.lost[f"status {answer.status_code}: {(await answer.aread()).decode()}"] += 1
            return
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    tally.lost[str(event["error"]["code"])] += 1
                    return
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    finish = choice["finish_reason"] or finish
                    audio = choice["delta"].get("audio") or {}
                    words += audio.get("transcript") or ""
                    if audio.get("data"):
                        now = time.monotonic()
                        first = first or now
                        # played from its first sample on, it has run dry before this piece came
                        tally.gaps += now - first > n_bytes / (2 * RATE_HZ) + 1e-3 and n_bytes > 0
                        n_bytes += len(base64.b64decode(audio["data"]))
    if not (done and finish and usage):
        tally.lost["no end"] += 1
        return
    n_units = usage["completion_tokens_details"]["audio_tokens"]
    number = int(content.split()[-2]) if isinstance(content, str) and model == "fake" else None
    if number is not None and (words != f"this is {number}" or n_units != number or n_bytes != 2 * 480 * number):
        tally.lost["another's answer, or not all of it"] += 1
        return
    tally.answers += 1
    tally.silent += first is None
    tally.tokens += usage["completion_tokens"]
    tally.sound_s += n_bytes / (2 * RATE_HZ)
    if first is not None:
        tally.first_s.append(first - began)


def contents(arguments: argparse.Namespace) -> list[str | list[dict[str, Any]]]:
    """Return what is asked: sentences to speak and spoken questions, or numbers."""
    asked: list[str | list[dict[str, Any]]] = []
    if arguments.sentences is not None:
        rows = map(json.loads, arguments.sentences.read_text(encoding="utf-8").splitlines())
        asked += [speaking_instruction(row["instruction"]) + row["transcription"] for row in rows]
    if arguments.questions is not None:
        sounds = [base64.b64encode(path.read_bytes()).decode() for path in arguments.questions.glob("what*.wav")]
        spoken = [{"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}} for sound in sounds]
        asked += [[spoken[n % len(spoken)]] for n in range(max(1, len(asked)))]
    return asked or [f"say the number {number} please" for number in range(30, 140)]


async def client(
    place: int,
    http: httpx.AsyncClient,
    model: str,
    asked: list[str | list[dict[str, Any]]],
    until: float,
    tally: Tally,
    max_tokens: int,
) -> None:
    """Ask until the time is up."""
    draw = np.random.default_rng(place)
    while time.monotonic() < until:
        try:
            await ask(http, model, asked[draw.integers(len(asked))], tally, max_tokens)
        except httpx.HTTPError as error:
            tally.lost[f"{type(error).__name__} at {time.strftime('%H:%M:%S')}, {innermost(error)!r}"] += 1


def innermost(error: BaseException) -> BaseException:
    """Return what an error began with."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


async def watch(process: psutil.Process | None, until: float, sizes: list[tuple[float, float, int]]) -> None:
    """Read the gateway's memory and count its descriptors every second."""
    began = time.monotonic()
    while process is not None and time.monotonic() < until:
        sizes.append((time.monotonic() - began, process.memory_info().rss / 2**20, process.num_fds()))
        await asyncio.sleep(1)


async def run(url: str, process: psutil.Process | None, arguments: argparse.Namespace) -> tuple[Tally, list]:
    tally, sizes = Tally(), []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=arguments.clients)
    key = {"authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits, headers=key) as http:
        model = (await http.get("/v1/models")).json()["data"][0]["id"]
        until = time.monotonic() + 60 * arguments.minutes
        asked = contents(arguments)
        work = [client(n, http, model, asked, until, tally, arguments.max_tokens) for n in range(arguments.clients)]
        await asyncio.gather(watch(process, until, sizes), *work)
    return tally, sizes


def fake_server() -> None:
    """Serve the fake engine at a free port, as `slm serve` would: run in a process of its own."""
    sys.path[:0] = [str(ROOT / "tests")]
    from slm_plugin.vocabulary import UnitVocabulary
    from slm_serve.app import create_app
    from slm_serve.backends.fake import FakeBackend
    from slm_serve.fakes import FakeCodec
    from slm_serve.server import Gateway, listen
    from slm_serve.service import Service
    from tiny_models import make_tokenizer

    tokenizer = make_tokenizer(50)
    vocabulary = UnitVocabulary.find(tokenizer)
    assert vocabulary is not None

    class Parrot(FakeBackend):
        """Says the number that it was asked for, in words and in as many units, 100 tokens a second."""

        async def generate(self, ids, params, model):
            asked = int(tokenizer.decode(ids).split("number ")[1].split(" ")[0])
            words = tokenizer(f"this is {asked}", add_special_tokens=False)["input_ids"]
            said = [*words, *asked * vocabulary.ids([asked % 50]), tokenizer.eos_token_id]
            self.scripts = [[[token] for token in said]]
            self.calls.clear()
            async with aclosing(super().generate(ids, params, model)) as deltas:
                async for delta in deltas:
                    await asyncio.sleep(0.01)
                    yield delta

    app = create_app(Service(tokenizer, vocabulary, FakeCodec(50), Parrot([[[0]]])))
    with listen("127.0.0.1", 0) as listener:
        asyncio.run(Gateway(app, listener, "127.0.0.1").serve([listener]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--model")
    parser.add_argument("--sentences", type=Path, help="JSON lines with instruction and transcription")
    parser.add_argument("--questions", type=Path, help="folder of recordings what*.wav")
    parser.add_argument("--codec")
    parser.add_argument("--url")
    parser.add_argument("--key", default="")
    parser.add_argument("--fake-server", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fake_server:
        fake_server()
        return
    command = [sys.executable, __file__, "--fake-server"]
    if arguments.model:
        served = ["--model", arguments.model, "--codec", arguments.codec, "--port", "0"]
        command = [sys.executable, "-m", "slm_serve.cli", *served]
    process = None
    if arguments.url is None:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        url = process.stdout.readline().split()[-1]
    else:
        url = arguments.url
    try:
        tally, sizes = asyncio.run(run(url, process and psutil.Process(process.pid), arguments))
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    seconds = 60 * arguments.minutes
    print(f"{arguments.clients} clients, {seconds:.0f} s: {tally.answers} answers, lost {dict(tally.lost) or 'none'}")
    print(f"{tally.tokens / seconds:.0f} tokens/s, {tally.sound_s / seconds:.1f} s of sound a second;", end=" ")
    print(f"{tally.silent} answers without sound")
    if tally.first_s:
        p50, p99 = median(tally.first_s), float(np.quantile(tally.first_s, 0.99))
        print(f"first sound: median {p50:.3f} s, 99 % within {p99:.3f} s; {tally.gaps} gaps at real-time playback")
    if len(sizes) > 9:
        half = np.array(sizes[len(sizes) // 2 :])
        slope = float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) * 60
        print(
            f"memory: {sizes[0][1]:.0f} MiB at first, {half[:, 1].max():.0f} at most,"
            f" {slope:+.2f} MiB a minute at last; each minute: {' '.join(f'{size:.0f}' for _, size, _ in sizes[::60])}"
        )
        counts = [count for _, _, count in sizes]
        print(f"open descriptors: {counts[0]} at first, {max(counts)} at most, {counts[-1]} at last")
    sys.exit(1 if tally.lost else 0)


if __name__ == "__main__":
    main()
