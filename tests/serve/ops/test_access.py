"""Who is let in: keys over HTTP and WebSocket, pages of other sites, and audio ids of other keys."""

import logging

import pytest

from serve.raw_socket import ask_socket
from slm_serve.ops import logs
from slm_serve.ops.auth import Keys
from slm_serve.ops.settings import Settings

pytestmark = pytest.mark.anyio

SPEECH = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


async def post(g, key=None, **headers):
    given = {"authorization": f"Bearer {key}"} if key else {}
    return await g.http.post("/v1/chat/completions", json=BODY, headers={**given, **headers})


BODY = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}


def test_every_known_key_is_compared_whatever_is_given(monkeypatch):
    compared = []
    import hmac

    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(len(a)) or original(a, b))
    keys = Keys(["one", "two", "a much longer key than the others"])
    owners = [keys.owner(given) for given in (b"one", b"two", b"", b"nobody's")]
    # three comparisons of 32 bytes each, for right keys and wrong ones
    assert compared == [32] * 12
    assert owners[0] != owners[1]
    assert owners[2:] == [None, None]
    assert Keys(["two"]).owner(b"two") == owners[1]


async def test_everything_but_the_page_and_the_health_needs_a_key(gateway):
    async with gateway("a<|eot_id|>", keys=["one"]) as g:
        for path in ("/", "/web/page.js", "/health", "/health/live", "/openapi.json"):
            assert (await g.http.get(path)).status_code == 200, path
        for path in ("/v1/models", "/metrics", "/docs", "/anything", "/web", "//v1/models"):
            assert (await g.http.get(path)).status_code == 401, path
        assert (await post(g, "one")).status_code == 200
        assert (await g.http.get("/metrics", headers={"authorization": "Bearer one"})).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"sec-websocket-protocol": "realtime"}])
async def test_a_web_socket_without_a_key_is_refused_before_it_opens(gateway, headers):
    async with gateway("a", keys=["one"]) as g:
        sent = await ask_socket(g.http._transport.app, "/v1/realtime?model=fake", headers)
        assert sent[0]["type"] == "websocket.http.response.start"
        assert sent[0]["status"] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer one"},
        {"sec-websocket-protocol": "realtime, openai-insecure-api-key.one"},
    ],
)
async def test_a_web_socket_with_a_key_opens(gateway, headers):
    async with gateway("a", keys=["one"]) as g:
        sent = await ask_socket(g.http._transport.app, "/v1/realtime?model=fake", headers)
        assert sent[0]["type"] == "websocket.accept"


async def test_an_audio_id_is_another_keys_secret(gateway):
    async with gateway("a<|3|><|eot_id|>", keys=["one", "two"]) as g:
        owner, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        answer = await g.http.post("/v1/chat/completions", json={**BODY, **SPEECH}, headers=owner)
        audio_id = answer.json()["choices"][0]["message"]["audio"]["id"]
        # 128 random bits
        assert len(audio_id.removeprefix("audio_")) == 32
        turn = [*BODY["messages"], {"role": "assistant", "audio": {"id": audio_id}}, *BODY["messages"]]
        again = {**BODY, "messages": turn}
        assert (await g.http.post("/v1/chat/completions", json=again, headers=owner)).status_code == 200
        refused = await g.http.post("/v1/chat/completions", json=again, headers=other)
        missing = {
            **BODY,
            "messages": [{"role": "assistant", "audio": {"id": audio_id[:-1] + "x"}}, *BODY["messages"]],
        }
        unknown = await g.http.post("/v1/chat/completions", json=missing, headers=other)
        # nobody can tell whether it exists
        assert refused.status_code == unknown.status_code == 400
        told, told_of_none = (answer.json()["error"]["message"] for answer in (refused, unknown))
        assert told.replace(audio_id, "ID") == told_of_none.replace(audio_id[:-1] + "x", "ID")


async def test_pages_of_other_sites_are_refused_unless_named(gateway):
    async with gateway("a<|eot_id|>") as g:
        refused = await post(g, origin="https://elsewhere.example")
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        assert (await post(g, origin="http://localhost")).status_code == 200
        sent = await ask_socket(
            g.http._transport.app, "/v1/realtime?model=fake", {"origin": "https://elsewhere.example"}
        )
        assert sent[0]["status"] == 403
    async with gateway("a<|eot_id|>", settings=Settings(cors_origins=["https://friend.example"])) as g:
        allowed = await post(g, origin="https://friend.example")
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://friend.example"
        assert (await post(g, origin="https://elsewhere.example")).status_code == 403
        asks = {"origin": "https://friend.example", "access-control-request-method": "POST"}
        assert (await g.http.options("/v1/chat/completions", headers=asks)).status_code == 200


async def test_log_lines_hold_ids_and_times_and_nothing_that_was_said(gateway, capsys):
    logs.configure("json", "debug")
    try:
        async with gateway("sesame<|3|><|eot_id|>", keys=["topsecret"]) as g:
            body = {"model": "fake", "messages": [{"role": "user", "content": "openup"}], **SPEECH}
            headers = {"authorization": "Bearer topsecret", "x-request-id": "mine-1"}
            answer = await g.http.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.headers["x-request-id"] == "mine-1"
            assert (await g.http.get("/v1/none", headers={**headers, "x-request-id": "no\x1fsuch"})).status_code == 404
    finally:
        for name in ("slm_serve", "uvicorn"):
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    said = capsys.readouterr().err
    assert '"request_id": "mine-1"' in said
    assert '"route": "/v1/chat/completions"' in said
    assert '"status": 200' in said
    for secret in ("topsecret", "openup", "sesame", "no\\u001fsuch"):
        assert secret not in said


def test_an_exception_is_logged_without_its_words(capsys):
    logs.configure("text", "info")
    try:
        raise ValueError("what was said")
    except ValueError:
        logging.getLogger("slm_serve.test").exception("it failed")
    finally:
        for name in ("slm_serve", "uvicorn"):
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    said = capsys.readouterr().err
    assert "it failed" in said
    assert "exception=ValueError" in said
    assert "what was said" not in said
