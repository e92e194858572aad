"""Voice activity of many callers together: silero-vad's network by ONNX Runtime.

The model ships in the package ``silero-vad``; its data is found without importing the package, which
would import torch.

Shapes: ``B`` callers, 512 samples a window at 16 kHz (32 ms) behind 64 samples of context.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_plugin.errors import SlmError
from slm_serve.workers.batcher import Batcher

RATE_HZ = 16_000
WINDOW = 512
_CONTEXT = 64
_MODEL = "data/silero_vad_16k_op15.onnx"


class Memory(NamedTuple):
    """What the network remembers of one caller.

    Attributes:
        state_2H: Its recurrent state, ``(2, 128)``.
        context_C: The last 64 samples.
    """

    state_2H: np.ndarray
    context_C: np.ndarray

    @classmethod
    def fresh(cls) -> Memory:
        """Return the memory of a caller who has said nothing."""
        return cls(np.zeros((2, 128), np.float32), np.zeros(_CONTEXT, np.float32))


class Window(NamedTuple):
    """One window of one caller.

    Attributes:
        memory: From the window before.
        wave_N: 512 samples.
    """

    memory: Memory
    wave_N: np.ndarray


class Activity(NamedTuple):
    """What a window is.

    Attributes:
        probability: Of speech.
        memory: For the next window.
    """

    probability: float
    memory: Memory


class VoiceActivityWorker:
    """Judges windows of every caller; the network is loaded by the first.

    Args:
        most: Largest batch.
        waiting: Windows that may wait.
    """

    def __init__(self, most: int = 64, waiting: int = 256) -> None:
        self._loading = threading.Lock()
        self._session: Any = None
        self.batcher: Batcher[Window, Activity] = Batcher(self._run, "slm-activity", 1, most, waiting)

    async def judge(self, window: Window) -> Activity:
        """Return the probability that a window holds speech.

        Raises:
            SlmError: silero-vad or onnxruntime is not installed.
        """
        return await self.batcher(window)

    async def close(self) -> None:
        """End the thread."""
        await self.batcher.close()

    def _run(self, windows: Sequence[Window]) -> list[Activity | Exception]:
        session = self._loaded()
        contexts_BC = np.stack([window.memory.context_C for window in windows])
        waves_BN = np.stack([window.wave_N for window in windows]).astype(np.float32)
        inputs = {
            "input": np.concatenate([contexts_BC, waves_BN], axis=1),
            "state": np.stack([window.memory.state_2H for window in windows], axis=1),
            "sr": np.array(RATE_HZ, np.int64),
        }
        probabilities_B1, states_2BH = session.run(None, inputs)
        return [
            Activity(float(probabilities_B1[row, 0]), Memory(states_2BH[:, row], waves_BN[row, -_CONTEXT:]))
            for row in range(len(windows))
        ]

    def _loaded(self) -> Any:
        with self._loading:
            if self._session is None:
                self._session = _load()
            return self._session


def _load() -> Any:
    package = importlib.util.find_spec("silero_vad")
    if package is None or importlib.util.find_spec("onnxruntime") is None:
        raise SlmError("turn detection needs silero-vad: pip install 'silero-vad[onnx-cpu]', or set it to null.")
    import onnxruntime

    assert package.submodule_search_locations is not None, "silero_vad is no package"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(package.submodule_search_locations[0]) / _MODEL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
