"""The commands of the documentation's kind, by curl."""

import asyncio
import base64
import json
import shutil

import pytest

from serve.sockets import served
from serve.sounds import recording

pytestmark = pytest.mark.anyio


async def curl(*arguments: str) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is needed: apt-get install curl")
    process = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--show-error", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def test_speech_is_written_to_a_file_and_written_down_again(gateway, tmp_path, codec):
    async with (
        gateway("good <|3|><|4|>morning<|5|><|eot_id|>", "good morning<|eot_id|>") as g,
        served(g.http._transport.app) as address,
    ):
        body = {"model": "fake", "input": "good morning", "voice": "alloy", "response_format": "wav"}
        target = tmp_path / "speech.wav"
        headers = ["-H", "Content-Type: application/json", "-H", "Authorization: Bearer any"]
        await curl(f"http://{address}/v1/audio/speech", *headers, "-d", json.dumps(body), "-o", str(target))
        assert target.read_bytes()[:4] == b"RIFF"
        file = tmp_path / "question.wav"
        file.write_bytes(base64.b64decode(recording(codec.decode([1, 2, 3] * 5))))
        form = ["-F", f"file=@{file}", "-F", "model=fake", "-F", "response_format=text"]
        assert await curl(f"http://{address}/v1/audio/transcriptions", *form) == b"good morning\n"


async def test_a_chat_streams(gateway):
    async with gateway("good morning<|eot_id|>") as g, served(g.http._transport.app) as address:
        body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        out = await curl("-N", f"http://{address}/v1/chat/completions", "-d", json.dumps(body))
    assert out.rstrip().endswith(b"data: [DONE]")
