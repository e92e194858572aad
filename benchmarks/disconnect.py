"""Claim: .3 s after a client has left, neither the engine nor the vocoder works for it any more.

Starts a stock vLLM on the CPU with a random Llama and the gateway in front of it. Clients ask for long spoken
answers and leave in the middle of them, alone and beside others that stay. Measured from the moment the client
closes its connection: until the gateway counts one answer less, which is when its vocoder has let go, and until
vLLM counts one request less. Beside it: the same of a client of vLLM's own text streams.

Exits with 1 where one takes longer.

    python benchmarks/disconnect.py [--repeats 10] [--others 0 4]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from serve import Server, body_of, favour_units, serving

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

LIMIT_S = 0.3
POLL_S = 0.01
LENGTH = 4000
GATEWAY, ENGINE = r"^slm_running (\S+)$", r"^vllm:num_requests_running\{[^}]*\} (\S+)$"


async def running(http: httpx.AsyncClient, pattern: str) -> float:
    """Return how many answers a server counts as under way."""
    page = (await http.get("/metrics")).text
    return sum(float(value) for value in re.findall(pattern, page, re.MULTILINE))


async def until(http: httpx.AsyncClient, pattern: str, count: int, began: float) -> float:
    """Wait until a server counts no more than so many; return the seconds since it began."""
    while await running(http, pattern) > count:
        await asyncio.sleep(POLL_S)
    return time.perf_counter() - began


def client(server: Server) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
    return httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=60)


async def stay(http: httpx.AsyncClient, number: int, speech: bool) -> None:
    """Listen for ever."""
    while True:
        async with http.stream("POST", "/v1/chat/completions", json=body_of(number, LENGTH, speech)) as answer:
            async for _ in answer.aiter_bytes():
                pass


async def leave(http: httpx.AsyncClient, number: int, speech: bool) -> None:
    """Ask and leave when the answer is well under way: with sound, when the first of it has come."""
    async with http.stream("POST", "/v1/chat/completions", json=body_of(number, LENGTH, speech)) as answer:
        n_lines = 0
        async for line in answer.aiter_lines():
            n_lines += line.startswith("data: {")
            if '"data":' in line if speech else n_lines > 20:
                return
    raise SystemExit("the answer ended before the client left")


async def measure(asked: Server, engine: Server, speech: bool, others: int, repeats: int) -> list[list[float]]:
    """Return, for every time a client left, the seconds until the asked server and until the engine knew."""
    found = []
    async with client(asked) as http, client(engine) as inner:
        watched = [(http, GATEWAY), (inner, ENGINE)] if speech else [(inner, ENGINE)]
        staying = [asyncio.create_task(stay(http, 100 + n, speech)) for n in range(others)]
        try:
            for number in range(repeats):
                while await running(inner, ENGINE) < others:
                    await asyncio.sleep(POLL_S)
                # a client of its own: what is closed is the connection, at once
                async with client(asked) as leaver:
                    await leave(leaver, number, speech)
                began = time.perf_counter()
                found.append(await asyncio.gather(*[until(*where, others, began) for where in watched]))
        finally:
            for task in staying:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*staying)
    while True:
        async with client(engine) as inner:
            if not await running(inner, ENGINE):
                return found
        await asyncio.sleep(POLL_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 4], help="answers that go on meanwhile")
    given = parser.parse_args()

    from slm_plugin.speech.mel_kmeans import load_tiny
    from tiny_models import make_model

    n_units, longest = load_tiny().n_units, 0.0
    with tempfile.TemporaryDirectory(prefix="bench-disconnect-") as folder:
        model = make_model(Path(folder) / "model", units=n_units, hidden=512, layers=8)
        favour_units(model, n_units, 4.0)
        with serving(model) as (gateway, stock):
            print(
                f"| answers beside it | gateway, median / longest of {given.repeats} | its engine | stock vLLM, text |"
            )
            print("|---|---|---|---|", flush=True)
            for others in given.others:
                ours = asyncio.run(measure(gateway, stock, True, others, given.repeats))
                theirs = asyncio.run(measure(stock, stock, False, others, given.repeats))
                columns = [*zip(*ours, strict=True), *zip(*theirs, strict=True)]
                longest = max(longest, *columns[0], *columns[1])
                cells = [f"{statistics.median(c) * 1e3:.0f} / {max(c) * 1e3:.0f} ms" for c in columns]
                print(f"| {others} | {' | '.join(cells)} |", flush=True)
    return int(longest > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
