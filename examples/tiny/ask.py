"""Serve the trained model and ask it a spoken question, as any client of OpenAI's API would.

    python examples/tiny/ask.py --output runs/demo --question examples/tiny/audio/what_is_zero_plus_seven.wav

Starts ``slm serve``, sends the recording through the ``openai`` package, and leaves in the output
folder: ``question.wav``, ``answer.wav`` (24 kHz), ``transcript.txt`` and ``serve.json`` (what
``slm serve`` needs to serve the same model again).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI

READY = "ready "
STOP_SECONDS = 30


def main() -> int:
    """Ask the question and write what was heard and answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the answer")
    parser.add_argument("--question", type=Path, required=True, help="a recording of the question")
    parser.add_argument("--model", type=Path, default=None, help="exported model; <output>/model unless set")
    parser.add_argument("--codec", default="tiny", help="codec of the model's units")
    options = parser.parse_args()
    model = options.model or options.output / "model"
    with serving(model, options.codec, options.output / "logs" / "serve.log") as address:
        message = ask(address, options.question.read_bytes())
    write(options.output / "answer.wav", base64.b64decode(message.audio.data))
    write(options.output / "question.wav", options.question.read_bytes())
    served = {"model": str(model), "codec": options.codec}
    write(options.output / "serve.json", json.dumps(served, indent=2).encode() + b"\n")
    asked = options.question.stem.replace("_", " ")
    heard = message.model_extra["slm"]["heard"]
    lines = [f"asked:    {asked}", f"heard:    {heard}", f"answered: {message.audio.transcript}"]
    write(options.output / "transcript.txt", "\n".join([*lines, ""]).encode())
    print("\n".join(lines))
    return 0


@contextmanager
def serving(model: Path, codec: str, log: Path) -> Iterator[str]:
    """Run ``slm serve`` on a free port of this machine and give its address."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "slm_plugin", "serve", "--model", str(model), "--codec", codec]
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if line.startswith(READY):
                yield line.removeprefix(READY).strip()
                return
        raise SystemExit(f"slm serve ended with status {server.wait()} before it was ready; see {log}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(STOP_SECONDS)
        server.stdout.close()


def ask(address: str, recording: bytes) -> Any:
    """Send a recording and return the answer's message."""
    client = OpenAI(base_url=f"{address}/v1", api_key="unused")
    sound = {"data": base64.b64encode(recording).decode(), "format": "wav"}
    completion = client.chat.completions.create(
        model=client.models.list().data[0].id,
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]}],
        temperature=0,
        max_completion_tokens=128,
    )
    return completion.choices[0].message


def write(path: Path, content: bytes) -> None:
    """Write a file to a temporary name and move it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    shutil.move(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
