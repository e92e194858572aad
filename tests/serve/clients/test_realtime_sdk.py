"""The ``openai`` SDK's own realtime client.

It needs ``websockets.asyncio`` (13 or newer). LLaMA-Factory's gradio pins an older one, so the client runs
in a process of its own, with a newer websockets in front of the environment's.
"""

import asyncio
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from serve.sockets import served

pytestmark = pytest.mark.anyio

ANSWER = "who is it?\n\nthe cat\n\nthe <|3|><|4|>cat<|5|><|eot_id|>"


@pytest.fixture(scope="module")
def newer(uv, tmp_path_factory) -> str | None:
    """A folder that holds a websockets which the SDK accepts; None where the environment's will do."""
    if int(metadata.version("websockets").split(".")[0]) >= 13:
        return None
    folder = tmp_path_factory.mktemp("websockets")
    command = [uv, "pip", "install", "--quiet", "--target", str(folder), "--no-deps", "websockets>=13,<16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the SDK's realtime client needs websockets 13 from the package index: {done.stderr[:200]}")
    return str(folder)


async def test_the_sdks_own_client_holds_a_conversation(gateway, newer, root, tmp_path):
    wave_N, rate_hz = soundfile.read(root / "examples/tiny/audio/what_is_the_job_of_david.wav", dtype="float32")
    silence = np.zeros(24_000)
    turn = np.concatenate([silence, soxr.resample(wave_N, rate_hz, 24_000), silence])
    samples = tmp_path / "turn.pcm"
    samples.write_bytes((turn * 32767).astype("<i2").tobytes())
    environment = {**os.environ, **({"PYTHONPATH": newer} if newer else {})}
    async with gateway(ANSWER, ANSWER, ["one<|1|>", "two<|2|>"]) as g, served(g.http._transport.app) as address:
        driver = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("drive_realtime.py")),
            address,
            str(samples),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        while len(g.backend.calls) < 2 and driver.returncode is None:
            await asyncio.sleep(0.01)
        if len(g.backend.calls) == 2:
            # the third answer never ends by itself
            await g.backend.calls[1].ended.wait()
            g.backend.hang_after = 1
        out, err = await driver.communicate()
    assert driver.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["websockets"] >= 13
    assert told["manual"] == {"status": "completed", "transcript": "the cat", "samples": 3 * 480}
    assert told["detected"] == {"status": "completed", "transcript": "the cat", "samples": 3 * 480}
    assert told["cancelled"] == {"status": "cancelled", "reason": "client_cancelled"}
