"""Hold a realtime conversation with the ``openai`` SDK and print what came: ``ADDRESS SAMPLES``."""

import asyncio
import base64
import json
import sys
from importlib import metadata
from pathlib import Path

from openai import AsyncOpenAI

HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


async def answered(connection):
    """Take events until an answer is complete."""
    samples, transcript = 0, ""
    async for event in connection:
        if event.type == "error":
            raise SystemExit(event.error.message)
        if event.type == "response.output_audio.delta":
            samples += len(base64.b64decode(event.delta)) // 2
        if event.type == "response.output_audio_transcript.delta":
            transcript += event.delta
        if event.type == "response.done":
            return {"status": event.response.status, "transcript": transcript, "samples": samples}
    raise SystemExit("the session ended before the answer")


async def say(connection, samples):
    for start in range(0, len(samples), 9600):
        await connection.input_audio_buffer.append(audio=base64.b64encode(samples[start : start + 9600]).decode())


async def main(address: str, path: str) -> None:
    samples = Path(path).read_bytes()
    client = AsyncOpenAI(api_key="any", base_url=f"http://{address}/v1", websocket_base_url=f"ws://{address}/v1")
    told = {"websockets": int(metadata.version("websockets").split(".")[0])}
    async with client.realtime.connect(model="fake") as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await say(connection, samples)
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        told["manual"] = await answered(connection)
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
        )
        await say(connection, samples)
        told["detected"] = await answered(connection)
        await connection.conversation.item.create(item=HELLO)
        await connection.response.create()
        async for event in connection:
            if event.type == "response.output_audio_transcript.delta":
                await connection.response.cancel()
            if event.type == "response.done":
                told["cancelled"] = {
                    "status": event.response.status,
                    "reason": event.response.status_details.reason,
                }
                break
    sys.stdout.write(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
