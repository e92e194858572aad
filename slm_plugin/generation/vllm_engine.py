"""Generation by vLLM, in a child process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from slm_plugin.errors import EngineError
from slm_plugin.generation.model import load_model, tokenizer_folder
from slm_plugin.generation.protocol import Answer, Sampling, Told

_TAIL_CHARACTERS = 2000


class VllmEngine:
    """vLLM in a child process, which answers one JSON line with another.

    An adapter is merged first, into a temporary folder: vLLM takes none with trained embeddings.

    Args:
        model: Folder of the model.
        adapter: Folder of an adapter; None for the model itself.

    Raises:
        EngineError: vLLM is not installed, or does not start.
    """

    name = "vllm"

    def __init__(self, model: Path, adapter: Path | None = None) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise EngineError("vLLM is not installed; pip install 'slm-plugin[serve]', or use --engine transformers.")
        with contextlib.ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slm-synthesis-")))
            self._log_path = work / "vllm.log"
            folder = _merged(model, adapter, work / "model") if adapter else model
            log = stack.enter_context(self._log_path.open("wb"))
            command = [sys.executable, "-m", "slm_plugin.generation.vllm_child", str(folder)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=child_environment()
            )
            stack.callback(self._end)
            self._ask(None)
            self._stack = stack.pop_all()

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Continue every prompt; each has a seed of its own.

        Raises:
            EngineError: The child ended.
        """
        reply = self._ask({"prompts": [list(prompt) for prompt in prompts], "sampling": asdict(sampling)})
        return [Answer(tuple(ids), finished, score) for ids, finished, score in reply["answers"]]

    def tell(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Told]:
        """Say how probable each given answer is behind its prompt.

        Raises:
            EngineError: The child ended.
        """
        reply = self._ask({"pairs": [[list(prompt), list(answer)] for prompt, answer in pairs]})
        return [Told(tuple(logs), tuple(likeliest)) for logs, likeliest in reply["told"]]

    def close(self) -> None:
        """End the child and remove its files."""
        self._stack.close()

    def _ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """Send a request, or none to wait for the child to be ready, and return its reply."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None, "the child was started with pipes"
        assert sink is not None, "the child was started with pipes"
        with contextlib.suppress(BrokenPipeError):
            if request is not None:
                sink.write(json.dumps(request).encode() + b"\n")
                sink.flush()
        line = source.readline()
        if not line:
            self._process.wait()
            tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARACTERS:].strip()
            raise EngineError(f"vLLM ended with code {self._process.returncode}. The end of its log:\n{tail}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _end(self) -> None:
        pipes: list[IO[bytes] | None] = [self._process.stdin, self._process.stdout]
        for pipe in pipes:
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            # the end of its input is what the child stops at
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _merged(model: Path, adapter: Path, folder: Path) -> Path:
    from transformers import AutoTokenizer

    # the GPU's memory is the child's
    load_model(model, adapter, on_cpu=True).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_folder(model, adapter)).save_pretrained(folder)
    return folder


def child_environment() -> dict[str, str]:
    """Return the variables under which vLLM runs in one process, and soon."""
    import torch

    found = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    # without bytecode its start takes minutes
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    if not torch.cuda.is_available():
        # compiling costs more than it gains there
        found.setdefault("TORCHDYNAMO_DISABLE", "1")
    return found
