"""Variables of the endpoint plugin."""

import inspect
from pathlib import Path

import pytest

from slm_plugin.errors import ConfigError, Problem
from slm_serve import cli
from slm_serve.endpoint_options import REFUSED, EndpointOptions, by_variable
from slm_serve.ops.limits import Limits

CODEC = {"SLM_SERVE_CODEC": "chirps"}


def problems(**environment):
    with pytest.raises(ConfigError) as caught:
        EndpointOptions.read(environment)
    return {problem.where: problem.what for problem in caught.value.problems}


def test_the_codec_is_enough_and_other_variables_are_others():
    options = EndpointOptions.read({**CODEC, "PATH": "/bin", "VLLM_PLUGINS": "slm_serve"})
    assert options.codec == "chirps"
    assert options.limits == Limits()
    assert (options.api_key_file, options.store, options.cors_origin, options.web) == (None, "memory", (), True)


def test_every_variable_is_read():
    options = EndpointOptions.read(
        {
            **CODEC,
            "SLM_SERVE_API_KEY_FILE": "keys.txt",
            "SLM_SERVE_MAX_STREAMS": "3",
            "SLM_SERVE_MAX_BODY_MIB": "0.5",
            "SLM_SERVE_TOTAL_SECONDS": "60",
            "SLM_SERVE_CORS_ORIGIN": "https://a.org, https://b.org",
            "SLM_SERVE_WEB": "false",
            "SLM_SERVE_LOG_FORMAT": "json",
        }
    )
    assert options.api_key_file == Path("keys.txt")
    # half a MiB: 2**20 / 2
    assert options.limits == Limits(streams=3, body_bytes=524_288, total_s=60)
    assert options.cors_origin == ("https://a.org", "https://b.org")
    assert (options.web, options.log_format) == (False, "json")


def test_everything_wrong_is_told_at_once():
    found = problems(
        SLM_SERVE_MAX_STREAM="3",
        SLM_SERVE_MAX_QUEUE="many",
        SLM_SERVE_MAX_UNITS="0",
        SLM_SERVE_STALL_SECONDS="nan",
        SLM_SERVE_LOG_LEVEL="inform",
        SLM_SERVE_EXPERTS="runs/experts",
    )
    assert found["SLM_SERVE_CODEC"] == "is required."
    assert "Did you mean 'SLM_SERVE_MAX_STREAMS'?" in found["SLM_SERVE_MAX_STREAM"]
    assert "valid integer" in found["SLM_SERVE_MAX_QUEUE"]
    assert "greater than or equal to 1, got '0'" in found["SLM_SERVE_MAX_UNITS"]
    assert "finite number" in found["SLM_SERVE_STALL_SECONDS"]
    assert "Accepted: debug, error, info, warning" in found["SLM_SERVE_LOG_LEVEL"]
    assert "need the gateway, slm serve --experts" in found["SLM_SERVE_EXPERTS"]
    assert len(found) == 7


def test_every_option_of_the_command_is_had_or_refused_with_a_reason():
    of_the_command = set(inspect.signature(cli.serve).parameters)
    assert set(EndpointOptions.model_fields) | set(REFUSED) == of_the_command
    assert not set(EndpointOptions.model_fields) & set(REFUSED)


def test_what_kubernetes_says_of_a_service_of_our_name_is_not_for_us():
    told = {
        "SLM_SERVE_SERVICE_HOST": "10.0.0.1",
        "SLM_SERVE_SERVICE_PORT": "80",
        "SLM_SERVE_SERVICE_PORT_HTTP": "80",
        "SLM_SERVE_PORT": "tcp://10.0.0.1:80",
        "SLM_SERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SLM_SERVE_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert EndpointOptions.read({**CODEC, **told}).codec == "chirps"
    assert "give it --port" in problems(**CODEC, SLM_SERVE_PORT="9000")["SLM_SERVE_PORT"]


def test_problems_of_options_are_told_of_their_variables():
    error = by_variable(ConfigError([Problem("--api-key-file", "is empty."), Problem("config.json", "is not JSON.")]))
    assert [problem.where for problem in error.problems] == ["SLM_SERVE_API_KEY_FILE", "config.json"]
