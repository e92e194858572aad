"""What is measured, counted and traced."""

import asyncio
import json
import re
import ssl
from pathlib import Path

import httpx
import pytest
import typer
import yaml
from typer.testing import CliRunner

from slm_plugin.errors import ConfigError
from slm_serve.cli import serve
from slm_serve.ops.metrics import Metrics
from slm_serve.ops.settings import Settings
from slm_serve.ops.tracing import Tracing
from slm_serve.server import Gateway, Tls, listen

pytestmark = pytest.mark.anyio

BODY = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
SPEECH = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


def value(g, name):
    (line,) = [line for line in g.service.metrics.page().decode().splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


async def test_an_answer_is_counted(gateway):
    async with gateway("two words" + "<|3|>" * 50 + "<|eot_id|>") as g:
        answer = await g.http.post("/v1/chat/completions", json={**BODY, **SPEECH})
        used = answer.json()["usage"]
        assert value(g, 'slm_requests_total{route="/v1/chat/completions",status="200"}') == 1
        assert value(g, 'slm_tokens_total{kind="audio"}') == 50
        assert value(g, 'slm_tokens_total{kind="text"}') == used["completion_tokens"] - 50
        assert value(g, 'slm_tokens_total{kind="prompt_text"}') == used["prompt_tokens"]
        # 50 units of 20 ms
        assert value(g, "slm_audio_seconds_total") == pytest.approx(1.0, abs=1e-3)
        assert value(g, "slm_time_to_first_audio_seconds_count") == 1
        assert value(g, "slm_real_time_factor_count") == 1
        assert value(g, 'slm_answers_total{finish="stop"}') == 1
        assert value(g, "slm_running") == 0


async def test_errors_are_counted_by_kind(gateway):
    async with gateway("a", failure=None) as g:
        await g.http.post("/v1/chat/completions", json={**BODY, "temperature": 9})
        await g.http.post("/v1/chat/completions", json={**BODY, "model": "none"})
        assert value(g, 'slm_errors_total{kind="invalid_value"}') == 1
        assert value(g, 'slm_errors_total{kind="model_not_found"}') == 1


async def test_the_measurements_have_a_place_of_their_own_where_asked(gateway):
    async with gateway("a", settings=Settings(metrics_here=False, web=False)) as g:
        assert (await g.http.get("/metrics")).status_code == 404
        assert (await g.http.get("/")).status_code == 404
    async with gateway("a") as g:
        assert "slm_running 0.0" in (await g.http.get("/metrics")).text


async def test_a_traced_request_has_a_span_with_its_parts_and_nothing_said(gateway):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    above = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with gateway("sesame<|3|><|eot_id|>", settings=Settings(tracing=tracing)) as g:
        g.service.tracing = tracing
        await g.http.post("/v1/chat/completions", json={**BODY, **SPEECH}, headers={"traceparent": above})
    answer, request = exporter.get_finished_spans()
    assert (answer.name, request.name) == ("answer", "/v1/chat/completions")
    assert answer.parent.span_id == request.context.span_id
    assert f"{request.context.trace_id:032x}" == above.split("-")[1]
    assert [event.name for event in answer.events] == ["first text", "first audio"]
    assert answer.attributes["slm.audio"] == 1
    assert request.attributes["http.response.status_code"] == 200
    written = json.dumps([span.to_json() for span in exporter.get_finished_spans()])
    assert "sesame" not in written
    assert "hello" not in written


def panels(root: Path):
    return json.loads((root / "serve/grafana.json").read_text())["panels"]


def test_every_measurement_of_the_dashboard_exists(root):
    metrics = Metrics()
    metrics.gauge("running", "", lambda: 0)
    metrics.gauge("queued", "", lambda: 0)
    metrics.gauge("sessions", "", lambda: 0)
    known = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    known |= {family.name for family in metrics.registry.collect()}
    ends = ("total", "bucket", "sum", "count")
    known |= {f"{family.name}_{end}" for family in metrics.registry.collect() for end in ends}
    used = {name for panel in panels(root) for t in panel["targets"] for name in re.findall(r"slm_\w+", t["expr"])}
    assert len(used) >= 10
    assert used <= known


def test_the_examples_of_deployment_are_yaml_with_probes_that_use_health(root):
    compose = yaml.safe_load((root / "serve/compose.yaml").read_text())
    assert "/health" in " ".join(compose["services"]["slm"]["healthcheck"]["test"])
    documents = list(yaml.safe_load_all((root / "serve/kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["Secret", "Deployment", "Service", "NetworkPolicy"]
    (container,) = documents[1]["spec"]["template"]["spec"]["containers"]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/health", "readinessProbe": "/health", "livenessProbe": "/health/live"}
    app = typer.Typer()
    app.command()(serve)
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400", "TERM": "dumb"}).output
    words = [*container["args"], *compose["services"]["slm"]["command"]]
    for option in [word.split("=")[0] for word in words if word.startswith("--")]:
        assert option in told, option


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is needed: pip install cryptography")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return Tls(folder / "certificate.pem", folder / "key.pem")


def test_tls_files_are_checked_before_anything_is_loaded(certificate, tmp_path):
    certificate.check()
    with pytest.raises(ConfigError, match="--tls-certificate/--tls-key"):
        Tls(certificate.certificate, certificate.certificate).check()
    with pytest.raises(ConfigError, match="cannot be used"):
        Tls(tmp_path / "none", certificate.key).check()


async def test_it_speaks_tls(certificate, gateway):
    async with gateway("a<|eot_id|>") as g:
        with listen("127.0.0.1", 0) as listener:
            server = Gateway(g.http._transport.app, listener, "127.0.0.1", tls=certificate)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.001)
            trusted = ssl.create_default_context(cafile=certificate.certificate)
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(verify=trusted) as http:
                assert (await http.get(f"{url}/health/live")).json() == {"status": "ok"}
            server.should_exit = True
            await serving
