"""Speech served beside text: first audio, gaps, tokens a second, and the reference's way of doing it.

One run starts a stock vLLM on the CPU with a random Llama and the gateway in front of it, both in processes
of their own, and measures, at 1, 8 and 32 requests at once:

- first audio: seconds from the request to the first sound of a streamed answer;
- underruns: answers whose playback at real time ran dry, and the longest silence in one;
- tokens a second with speech through the gateway, as a ratio to the same tokens of the same prompts
  streamed as text from the stock server.

`--reference` adds the reference's way on the same model: all of a prompt's tokens by transformers' generate,
one request after the other, then the vocoder; for first audio at equal lengths, and for throughput at ragged
lengths against the gateway with 32 requests at once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

RATE_HZ = 24_000
RAGGED = [8 + (37 * i) % 153 for i in range(48)]


@dataclass
class Answer:
    """What one streamed answer was like.

    Attributes:
        n_tokens: Generated.
        seconds: Until its end.
        arrivals: When each chunk of sound came, and for how many seconds it plays.
    """

    n_tokens: int
    seconds: float
    arrivals: list[tuple[float, float]] = field(default_factory=list)

    def first_s(self) -> float:
        """Return when the first sound came."""
        return self.arrivals[0][0]

    def dry_s(self) -> float:
        """Return for how long playback from the first chunk on stood still before the last."""
        ends_at, dry = self.arrivals[0][0], 0.0
        for came_at, plays_s in self.arrivals:
            dry += max(0.0, came_at - ends_at)
            ends_at = max(ends_at, came_at) + plays_s
        return dry


def favour_units(model: Path, n_units: int, weight: float) -> None:
    """Make units so likely that a random model speaks as trained ones do: mostly units."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"][-n_units:] *= weight
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def body_of(number: int, n_tokens: int, speech: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "model",
        "messages": [{"role": "user", "content": f"hello, this is number {number}"}],
        "max_tokens": n_tokens,
        "ignore_eos": True,
        "temperature": 1.0,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if speech:
        body |= {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    return body


async def ask(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> Answer:
    begun, arrivals, n_tokens = time.perf_counter(), [], 0
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            raise SystemExit(f"{url}: {(await answer.aread())[:300]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                n_tokens = event["usage"]["completion_tokens"]
            for choice in event["choices"]:
                data = (choice["delta"].get("audio") or {}).get("data")
                if data:
                    plays_s = len(base64.b64decode(data)) / 2 / RATE_HZ
                    arrivals.append((time.perf_counter() - begun, plays_s))
    if n_tokens != body["max_tokens"]:
        raise SystemExit(f"{url}: {n_tokens} tokens instead of {body['max_tokens']}")
    return Answer(n_tokens, time.perf_counter() - begun, arrivals)


@dataclass(frozen=True)
class Server:
    """Where to ask, and the key that opens it."""

    url: str
    key: str = ""


async def many(server: Server, lengths: Sequence[int], speech: bool, at_once: int) -> tuple[list[Answer], float]:
    """Ask so many at once, for answers of so many tokens; return them and the seconds that all took."""
    gate = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
    async with httpx.AsyncClient(trust_env=False, timeout=600, limits=limits, headers=headers) as http:

        async def one(number: int, n_tokens: int) -> Answer:
            async with gate:
                return await ask(http, server.url, body_of(number, n_tokens, speech))

        begun = time.perf_counter()
        answers = await asyncio.gather(*[one(number, n_tokens) for number, n_tokens in enumerate(lengths)])
        return answers, time.perf_counter() - begun


def rate(answers: Sequence[Answer], seconds: float) -> float:
    return sum(answer.n_tokens for answer in answers) / seconds


def measure(gateway: Server, stock: Server, n_tokens: int, repeats: int) -> None:
    print(
        "\n| at once | first audio p50 / max | answers that ran dry (longest) | audio s per s | tokens/s with audio"
        " | stock text tokens/s | ratio |\n|---|---|---|---|---|---|---|"
    )
    for at_once in (1, 8, 32):
        speech_rates, text_rates, answers, spoken_s, took_s = [], [], [], 0.0, 0.0
        asyncio.run(many(gateway, [8] * at_once, True, at_once))
        for _ in range(repeats):
            # in turn, so that what else the machine does strikes both alike
            more, seconds = asyncio.run(many(gateway, [n_tokens] * at_once, True, at_once))
            speech_rates.append(rate(more, seconds))
            answers += [answer for answer in more if answer.arrivals]
            spoken_s += sum(plays for answer in more for _, plays in answer.arrivals)
            took_s += seconds
            plain, seconds = asyncio.run(many(stock, [n_tokens] * at_once, False, at_once))
            text_rates.append(rate(plain, seconds))
        first = sorted(answer.first_s() for answer in answers)
        dry = [answer.dry_s() for answer in answers]
        speech, text = statistics.median(speech_rates), statistics.median(text_rates)
        ratio = statistics.median(s / t for s, t in zip(speech_rates, text_rates, strict=True))
        print(
            f"| {at_once} | {statistics.median(first) * 1e3:.0f} / {first[-1] * 1e3:.0f} ms"
            f" | {sum(d > 0.001 for d in dry)} of {len(dry)} ({max(dry) * 1e3:.0f} ms) | {spoken_s / took_s:.1f}"
            f" | {speech:.0f} | {text:.0f} | {ratio:.2f} |",
            flush=True,
        )


def reference(model: Path, gateway: Server, n_tokens: int) -> None:
    """Print the reference's way beside ours, on the same prompts and lengths."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from slm_plugin.speech.mel_kmeans import load_tiny
    from slm_plugin.vocabulary import UnitVocabulary

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    units, codec = UnitVocabulary.find(tokenizer), load_tiny()
    assert units is not None, "the model has no units"

    def answer(number: int, length: int) -> float:
        messages = body_of(number, length, True)["messages"]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        torch.manual_seed(number)
        begun = time.perf_counter()
        with torch.no_grad():
            ids = network.generate(**prompt, max_new_tokens=length, min_new_tokens=length, do_sample=True)
        codec.decode(units.units(ids[0, prompt["input_ids"].shape[1] :].tolist()))
        return time.perf_counter() - begun

    answer(0, 8)
    theirs = statistics.median(answer(number, n_tokens) for number in range(5))
    alone = [asyncio.run(many(gateway, [n_tokens], True, 1))[0][0] for _ in range(5)]
    ours = statistics.median(a.first_s() for a in alone)
    print(
        f"\nfirst audio, alone, {n_tokens} tokens: ours {ours * 1e3:.0f} ms, generate then vocoder"
        f" {theirs * 1e3:.0f} ms: {theirs / ours:.1f} times as soon"
    )
    seconds = sum(answer(number, length) for number, length in enumerate(RAGGED))
    ragged, ours_s = asyncio.run(many(gateway, RAGGED, True, 32))
    print(
        f"throughput, {len(RAGGED)} answers of {min(RAGGED)} to {max(RAGGED)} tokens: ours"
        f" {rate(ragged, ours_s):.0f} tokens/s, generate then vocoder {sum(RAGGED) / seconds:.0f}:"
        f" {seconds / ours_s * rate(ragged, 1) / sum(RAGGED):.1f} times",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512, help="width of the model, a multiple of 64")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--weight", type=float, default=4.0, help="how much units are favoured; at 4, 5 tokens of 6 are"
    )
    parser.add_argument("--reference", action="store_true", help="measure the reference's way too")
    given = parser.parse_args()

    from slm_plugin.speech.mel_kmeans import load_tiny
    from tiny_models import make_model

    n_units = load_tiny().n_units
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        model = make_model(Path(folder) / "model", units=n_units, hidden=given.hidden, layers=given.layers)
        favour_units(model, n_units, given.weight)
        n_weights = (model / "model.safetensors").stat().st_size / 4e6
        with serving(model) as (gateway, stock):
            answers, _ = asyncio.run(many(gateway, [given.tokens], True, 1))
            sound = sum(plays for _, plays in answers[0].arrivals)
            print(
                f"model of {n_weights:.1f} M parameters, answers of {given.tokens} tokens ({sound:.1f} s of speech),"
                f" median of {given.repeats}"
            )
            measure(gateway, stock, given.tokens, given.repeats)
            if given.reference:
                reference(model, gateway, given.tokens)


@contextmanager
def serving(model: Path) -> Iterator[tuple[Server, Server]]:
    """Run the gateway with the tiny codec; give it and the engine behind it."""
    command = [sys.executable, "-m", "slm_serve.cli", "--model", str(model), "--codec", "tiny", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None, "no output to read"
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise SystemExit("the server did not start")
        yield Server(line.split()[1]), engine_of(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def engine_of(gateway: int) -> Server:
    """Return the gateway's own engine."""
    import psutil

    for child in psutil.Process(gateway).children(recursive=True):
        command = child.cmdline()
        if "vllm.entrypoints.openai.api_server" in command:
            key = child.environ().get("VLLM_API_KEY", "")
            return Server(f"http://127.0.0.1:{command[command.index('--port') + 1]}", key)
    raise SystemExit("the gateway has no engine")


if __name__ == "__main__":
    main()
