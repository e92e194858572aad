"""Under which names a server answers, and which pages it lets in."""

import pytest

from serve.raw_socket import ask_socket
from slm_serve.ops.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "a.localhost", "127.0.0.1:8000", "[::1]:8000", "192.168.1.7", "speech.lan:8000"],
)
async def test_a_server_answers_under_its_own_names(gateway, host):
    async with gateway("a", settings=Settings(allowed_hosts=["speech.lan"])) as g:
        assert (await g.http.get("/health/live", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io"])
async def test_a_page_that_rebinds_its_name_reaches_nothing(gateway, host):
    async with gateway("a") as g:
        for path, method in (("/v1/chat/completions", "POST"), ("/health", "GET"), ("/v1/models", "GET")):
            answer = await g.http.request(method, path, headers={"host": host, "origin": f"http://{host}"})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "host_not_allowed"
        sent = await ask_socket(
            g.http._transport.app, "/v1/realtime?model=fake", {"host": host, "origin": f"http://{host}"}
        )
        assert sent[0]["status"] == 403


async def test_every_name_is_let_in_by_a_star_or_behind_a_key(gateway):
    async with gateway("a", settings=Settings(allowed_hosts=["*"])) as g:
        assert (await g.http.get("/v1/models", headers={"host": "any.example"})).status_code == 200
    async with gateway("a", keys=["secret"]) as g:
        headers = {"host": "any.example", "authorization": "Bearer secret"}
        assert (await g.http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "null", "http://a b", "\u00e9"])
async def test_an_origin_that_is_no_address_is_refused(gateway, origin):
    async with gateway("a") as g:
        answer = await g.http.post("/v1/chat/completions", headers={"origin": origin.encode()}, content=b"{}")
        assert answer.status_code == 403


async def test_a_browsers_sdk_passes_the_preflight_of_a_site_that_is_named(gateway):
    asked = "authorization, content-type, x-stainless-lang, x-stainless-retry-count, openai-beta, openai-organization"
    headers = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    async with gateway("a", settings=Settings(cors_origins=["https://app.example"])) as g:
        answer = await g.http.options("/v1/chat/completions", headers=headers)
        assert answer.status_code == 200
        allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].lower().split(",")}
        assert {name.strip() for name in asked.split(",")} <= allowed
        other = await g.http.options("/v1/chat/completions", headers={**headers, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
