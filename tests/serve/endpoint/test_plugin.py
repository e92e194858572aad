"""The endpoint plugin in an application as vLLM builds it, over a fake engine client; no vLLM runs here."""

from argparse import Namespace
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

import httpx
import prometheus_client
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

from serve.endpoint.fake_engine_client import FakeEngineClient, FakeServed
from slm_plugin.errors import ConfigError
from slm_serve import endpoint_plugin
from slm_serve.endpoint_plugin import SlmServe

pytestmark = pytest.mark.anyio

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def theirs():
    """Return as much of vLLM's application as ours could get in the way of."""

    @asynccontextmanager
    async def lifespan(app):
        app.state.opened = True
        yield
        app.state.closed = True

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    @app.post("/v1/completions")
    @app.get("/version")
    @app.get("/health")
    async def answer():
        return "vLLM"

    @app.exception_handler(ValueError)
    async def told(request, error):
        raise AssertionError("vLLM's handler must see no error of ours")

    return app


@pytest.fixture
def plugin(monkeypatch, tokenizer, vocabulary, codec, write):
    """Start a plugin as vLLM does: routes first, the engine later; gives the application and the engine."""

    @asynccontextmanager
    async def started(text="hi<|3|><|4|><|eot_id|>", args=None, client=None, **environment):
        for name, value in {"codec": "fake-codec", **environment}.items():
            monkeypatch.setenv(f"SLM_SERVE_{name.upper()}", str(value))
        monkeypatch.setattr(endpoint_plugin, "load_parts", lambda *_: (tokenizer, vocabulary, codec))
        client = client or FakeEngineClient([[token] for token in write(text)])
        app, made = theirs(), SlmServe()
        made.attach_router(app)
        app.state.openai_serving_models = FakeServed(client)
        await made.init_state(client, app.state, args or Namespace(api_key=None))
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vllm") as http:
                yield app, http, client
        finally:
            await made._close()

    return started


def test_vllm_finds_the_plugin_by_its_entry_point():
    (found,) = (entry for entry in entry_points(group="vllm.endpoint_plugins") if entry.name == "slm_serve")
    assert found.load() is SlmServe
    assert isinstance(SlmServe(), EndpointPlugin)
    assert SlmServe.required_tasks == ("generate",)


async def test_our_routes_take_the_place_of_vllms_and_the_others_stay(plugin):
    async with plugin() as (app, http, client):
        answer = (await http.post("/v1/chat/completions", json=HELLO)).json()
        assert answer["choices"][0]["message"]["content"] == "hi"
        assert len(client.requests) == 1
        assert (await http.get("/health")).json() == {"status": "ok", "engine": "ok", "vocoder": "ok"}
        card, _ = (await http.get("/v1/models")).json()["data"]
        assert (card["id"], card["slm"]["codec"], card["max_model_len"]) == ("m", "fake-codec", 77)
        assert "<html" in (await http.get("/")).text
        # theirs
        assert (await http.post("/v1/completions")).json() == "vLLM"
        assert (await http.get("/version")).json() == "vLLM"
        assert (await http.get("/nowhere")).json() == {"detail": "Not Found"}
        # vLLM lists its routes by these, and describes them
        assert ("/v1/chat/completions", {"POST"}) in [
            (route.path, getattr(route, "methods", None)) for route in app.routes
        ]
        assert "/version" in app.openapi()["paths"]


async def test_refusals_of_our_routes_have_our_form(plugin):
    async with plugin() as (_, http, _):
        wrong = await http.post("/v1/chat/completions", json={**HELLO, "temprature": 1})
        assert wrong.status_code == 400
        assert wrong.json()["error"]["param"] == "temprature"
        assert (await http.get("/v1/chat/completions")).status_code == 405
        assert "x-request-id" in wrong.headers


async def test_what_fails_behind_a_door_is_answered_once_and_logged_without_its_words(plugin, monkeypatch, capsys):
    async with plugin() as (_, http, client):
        monkeypatch.setattr(client, "generate", None)
        answer = await http.post("/v1/chat/completions", json=HELLO)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
    said = capsys.readouterr().err
    assert "a request has failed" in said
    assert "exception=TypeError" in said
    assert "NoneType" not in said


async def test_our_keys_are_asked_for_at_every_route_of_the_process(plugin, tmp_path):
    (tmp_path / "keys").write_text("right\n")
    async with plugin(api_key_file=tmp_path / "keys") as (_, http, _):
        for path in ("/v1/chat/completions", "/v1/completions"):
            for key in ("wrong", ""):
                answer = await http.post(path, json=HELLO, headers={"authorization": f"Bearer {key}"})
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert (await http.post(path, json=HELLO, headers={"authorization": "Bearer right"})).status_code == 200
        assert (await http.get("/version")).status_code == 401
        assert (await http.get("/health")).status_code == 200


async def test_vllms_keys_own_the_answers_they_asked_for(plugin):
    speech = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    async with plugin(args=Namespace(api_key=["one", "two"])) as (_, http, _):
        mine, other = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
        first = (await http.post("/v1/chat/completions", json={**HELLO, **speech}, headers=mine)).json()
        said = {"role": "assistant", "audio": {"id": first["choices"][0]["message"]["audio"]["id"]}}
        more = {**HELLO, "messages": [*HELLO["messages"], said, *HELLO["messages"]]}
        assert (await http.post("/v1/chat/completions", json=more, headers=mine)).status_code == 200
        assert (await http.post("/v1/chat/completions", json=more, headers=other)).status_code == 400
        assert (await http.post("/v1/chat/completions", json=HELLO)).status_code == 401


async def test_measurements_are_with_vllms_and_go_with_the_server(plugin):
    async with plugin() as (_, http, _):
        await http.post("/v1/chat/completions", json=HELLO)
        page = prometheus_client.generate_latest().decode()
        assert 'slm_requests_total{route="/v1/chat/completions",status="200"} 1.0' in page
    assert "slm_requests" not in prometheus_client.generate_latest().decode()


async def test_the_interleave_processor_of_vllm_is_used_where_it_is_there(plugin, write):
    for processors, mode in ((None, None), (["slm_serve.interleave.processor:InterleaveProcessor"], "text")):
        client = FakeEngineClient([write("hi<|eot_id|>")], processors=processors)
        async with plugin(client=client) as (_, http, _):
            await http.post("/v1/chat/completions", json={**HELLO, "interleave": "text"})
        assert (client.requests[0].params.extra_args or {}).get("slm_mode") == mode


@pytest.mark.parametrize(
    ("environment", "args", "words"),
    [
        ({"experts": "here"}, {}, "SLM_SERVE_EXPERTS: the plugin does not have it"),
        ({"api_key_file": "/nowhere"}, {}, "SLM_SERVE_API_KEY_FILE: /nowhere cannot be read"),
        ({"store": "tape"}, {}, "SLM_SERVE_STORE: 'tape' is no store"),
        ({"api_key_file": "KEYS"}, {"api_key": ["their"]}, "SLM_SERVE_API_KEY_FILE: vLLM has keys of its own"),
        ({}, {"api_server_count": 2}, "SLM_SERVE_STORE: 2 API servers need a store that they share"),
    ],
)
async def test_what_does_not_fit_keeps_the_server_from_starting(plugin, tmp_path, environment, args, words):
    (tmp_path / "keys").write_text("right\n")
    environment = {name: tmp_path / "keys" if value == "KEYS" else value for name, value in environment.items()}
    with pytest.raises(ConfigError, match=words):
        async with plugin(args=Namespace(**{"api_key": None, **args}), **environment):
            pass


async def test_our_part_closes_with_vllms_application(plugin):
    async with plugin() as (app, _, _):
        with TestClient(app):
            assert app.state.opened
            assert "slm_requests" in prometheus_client.generate_latest().decode()
        assert app.state.closed
        assert "slm_requests" not in prometheus_client.generate_latest().decode()
