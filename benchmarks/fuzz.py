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
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from fuzz_client import IN_FLIGHT, KINDS, ROOT, Client, Result
from fuzz_inputs import (
    VOICE_ACTIVITY,
    adapter_input,
    audio_input,
    frame,
    http_input,
    multipart_input,
    websocket_input,
)


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
