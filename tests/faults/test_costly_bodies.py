"""Bodies that cost more to refuse than to send: refused at the first errors, in memory of their own size."""

import json
import tracemalloc

import pytest

from faults.conftest import body
from slm_serve.errors import RequestError
from slm_serve.parsing import MAX_JSON_VALUES, parse_json, read_json
from slm_serve.protocol import UNSUPPORTED, ChatRequest

pytestmark = pytest.mark.anyio

MIB = 2**20


def chat(text: str) -> bytes:
    return b'{"model":"fake","messages":' + text.encode() + b"}"


COSTLY = {
    "numbers for messages": chat("[" + "0," * 400_000 + "0]"),
    "lists for messages": chat("[" + "[]," * 300_000 + "[]]"),
    "objects for messages": chat("[" + "{}," * 300_000 + "{}]"),
    "unknown keys": b'{"model":"fake","messages":[],' + b",".join(b'"k%d":0' % i for i in range(90_000)) + b"}",
    "parts": chat('[{"role":"user","content":[' + "0," * 90_000 + "0]}]"),
    "bad messages": chat("[" + '{"role":"user"},' * 40_000 + "0]"),
    "unknown keys in a message": chat('[{"role":"user",' + ",".join(f'"k{i}":0' for i in range(90_000)) + "}]"),
    "a long tag": chat('[{"role":"' + "x" * MIB + '"}]'),
    "a long key": b'{"' + b"x" * MIB + b'":0}',
    "depth": chat("[" * 100_000),
}


@pytest.mark.parametrize("name", COSTLY)
def test_the_refusal_of_a_body_takes_no_more_memory_than_a_few_bodies(name):
    raw = COSTLY[name]
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as told:
            parse_json(ChatRequest, raw, UNSUPPORTED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 400,000 numbers took 390 MB
    assert peak < 24 * MIB
    assert len(str(told.value)) < 1100
    assert len(told.value.param or "") < 1000


def test_commas_of_a_long_text_do_not_count_as_too_many_values():
    text = "a, b. " * 90_000
    assert read_json(json.dumps({"input": text}), "the body")["input"] == text


def test_the_bound_is_on_values_and_not_on_bytes():
    data = "A" * (4 * MIB)
    assert len(read_json(json.dumps({"data": data}).encode(), "the body")["data"]) == 4 * MIB
    with pytest.raises(RequestError, match="more than 100,000 values"):
        read_json(b"[" + b"0," * MAX_JSON_VALUES + b"0]", "the body")


@pytest.mark.parametrize(
    "event",
    [
        '{"type":"' + "x" * 2 * MIB + '"}',
        '{"type":[' + "0," * 90_000 + "0]}",
        '{"type":"session.update","session":{"tools":[' + "0," * 90_000 + "0]}}",
        '{"type":"session.update","session":{"' + "x" * 2 * MIB + '":0}}',
        '{"type":"conversation.item.create","item":{"type":"message","role":"user","content":['
        + "0," * 90_000
        + "0]}}",
        '{"type":"response.create","response":{"output_modalities":[' + "0," * 90_000 + "0]}}",
        '{"type":"conversation.item.retrieve","item_id":"' + "x" * 2 * MIB + '"}',
    ],
    ids=["a long type", "a list for a type", "tools", "a long key", "parts", "modalities", "a long id"],
)
async def test_a_large_wrong_event_is_one_short_error_and_the_session_goes_on(live, event):
    import websockets

    async with live("a") as g, websockets.connect("ws://{}:{}/v1/realtime?model=fake".format(*g.address)) as socket:
        await socket.recv()
        await socket.send(event)
        answer = await socket.recv()
        assert json.loads(answer)["type"] == "error"
        assert len(answer) < 2000
        await socket.send('{"type":"input_audio_buffer.clear"}')
        assert json.loads(await socket.recv())["type"] == "input_audio_buffer.cleared"


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "utf-16", "unicode_escape", "latin-1", "nonsense"])
async def test_a_form_cannot_choose_the_codec_of_its_text(live, charset):
    content = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n' + b"a-" * 400_000 + b"\r\n--b--\r\n"
    async with live("a") as g:
        answer = await g.http.post(
            "/v1/audio/transcriptions",
            content=content,
            headers={"content-type": f"multipart/form-data; boundary=b; charset={charset}"},
        )
        assert answer.status_code == 400
        assert "utf-8" in answer.json()["error"]["message"]
        assert g.backend.calls == []


@pytest.mark.parametrize(
    "part",
    [
        b'name="model"\r\n\r\n\xff\xfe',
        b'name="\xff"\r\n\r\nx',
        b'name="file"; filename="\xff.wav"\r\n\r\nx',
    ],
    ids=["a value", "a name", "a file name"],
)
async def test_text_of_a_form_that_is_not_utf8_is_refused(live, part):
    async with live("a") as g:
        answer = await g.http.post(
            "/v1/audio/transcriptions",
            content=b"--b\r\ncontent-disposition: form-data; " + part + b"\r\n--b--\r\n",
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 400
        assert "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions"])
async def test_a_compressed_body_is_refused_by_name(live, path):
    async with live("a") as g:
        headers = {"content-encoding": "gzip", "content-type": "multipart/form-data; boundary=b"}
        answer = await g.http.post(path, content=body(), headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "unsupported_content_encoding"
