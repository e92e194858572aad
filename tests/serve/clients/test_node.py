"""The ``openai`` SDK for Node."""

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from serve.sockets import served
from serve.sounds import recording

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SPOKEN = "who is it?\n\nthe cat\n\nthe <|3|><|4|>cat<|5|><|eot_id|>"
SAID = "good <|3|>morning<|4|><|eot_id|>"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the driver and the SDK."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node is needed: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(Path(__file__).with_name("drive.mjs"), folder)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "openai@>=5"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the npm package openai is needed: {done.stderr[-200:]}")
    return folder


async def test_the_node_sdk_is_answered(gateway, project, codec):
    question = project / "question.wav"
    question.write_bytes(base64.b64decode(recording(codec.decode([1, 2, 3] * 5))))
    async with (
        gateway(SPOKEN, SAID, SAID, "the cat sat<|eot_id|>") as g,
        served(g.http._transport.app) as address,
    ):
        driver = await asyncio.create_subprocess_exec(
            "node",
            "drive.mjs",
            address,
            str(question),
            cwd=project,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await driver.communicate()
        one, two = g.backend.calls[:2]
    assert driver.returncode == 0, err.decode()
    assert json.loads(out) == {
        "models": ["fake"],
        "transcript": "the cat",
        "riff": "RIFF",
        "streamed": {"transcript": "good morning", "samples": 2 * 480, "units": 2},
        "speech": 2 * 480,
        "transcription": "the cat sat",
        "refused": {"status": 400, "param": "n"},
    }
    # the earlier answer went back by its id
    assert two.ids[: len(one.ids) + len(one.sent)] == one.ids + one.sent
