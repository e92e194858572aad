"""The whole server for real: `slm serve` with a stock vLLM, driven by the real client.

The model is random, so what it says means nothing; that every way of asking says the same does.
"""

import base64
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import psutil
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from serve.sounds import recording, spoken
from slm_plugin.speech.mel_kmeans import MelKmeansSettings
from slm_plugin.speech.mel_kmeans_fit import fit
from tiny_models import make_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

UNITS = 40
HELLO = {"role": "user", "content": "hello, how are you today"}
SPEECH = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}


def chirps(seed: int) -> np.ndarray:
    """Two seconds of changing tones at 16 kHz."""
    draw = np.random.default_rng(seed)
    frequencies = draw.uniform(100, 3000, 20).repeat(1600)
    wave = 0.3 * np.sin(2 * np.pi * np.cumsum(frequencies) / 16_000) + 0.01 * draw.standard_normal(32_000)
    return wave.astype(np.float32)


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("codecs") / "chirps"
    fit([chirps(seed) for seed in range(4)], UNITS, MelKmeansSettings(), seed=0).save(folder)
    return folder


def favour_units(model: Path) -> None:
    """Make unit tokens a third more likely to be loud, so that a random model speaks now and then."""
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"][-UNITS:] *= 1.3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def start(model: Path, codec: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "slm_serve.cli", "--model", str(model), "--codec", str(codec), "--port", "0"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Server:
    """A running `slm serve`."""

    def __init__(self, process: subprocess.Popen, url: str, model: Path, codec: Path) -> None:
        self.process = process
        self.url = url
        self.model = model
        self.codec = codec
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0)

    def ask(self, *messages, **more):
        body = {"model": "model", "messages": list(messages), "temperature": 0, "max_tokens": 80}
        return self.client.chat.completions.create(**{**body, **more})


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process still holds anything: not one that has ended and waits to be asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory, codec):
    folder = tmp_path_factory.mktemp("serve")
    # layers enough that the engine does not outrun the process that answers for it on a busy machine
    model = make_model(folder / "model", units=UNITS, layers=48)
    favour_units(model)
    (folder / "keys").write_text("key\n")
    log = folder / "vllm.log"
    # a cached prefix rounds otherwise, and a random model's first two choices are often that close
    plain = "--engine-argument=--no-enable-prefix-caching"
    keys = ("--api-key-file", str(folder / "keys"))
    process = start(model, codec, *keys, "--engine-log", str(log), "--interleave-processor", plain)
    try:
        line = process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), process.stderr.read()
        yield Server(process, line.split()[1], model, codec)
        family = psutil.Process(process.pid).children(recursive=True)
        # vLLM's server and its workers
        assert len(family) >= 2
        process.terminate()
        # nothing but the one line was said
        assert process.stdout.read() == ""
        assert process.wait() == 0, process.stderr.read()
        assert [member for member in family if is_alive(member)] == []
    finally:
        process.kill()
        process.communicate()


def test_it_is_healthy_and_lists_the_model_with_its_codec(server):
    assert server.client.with_options(base_url=server.url).get("/health", cast_to=object) == {
        "status": "ok",
        "engine": "ok",
        "vocoder": "ok",
    }
    names = [model.id for model in server.client.models.list()]
    assert names == ["model", str(server.model)]
    card = server.client.models.retrieve("model")
    assert card.slm["n_units"] == UNITS
    assert card.max_model_len == 8192


def test_a_wrong_key_is_refused(server):
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="other").models.list()


def test_written_answers_are_the_same_whole_and_streamed(server):
    whole = server.ask(HELLO)
    stream = server.ask(HELLO, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens <= 80


def test_answers_are_what_transformers_generates(server):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(server.model)
    model = AutoModelForCausalLM.from_pretrained(server.model, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template([HELLO], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    assert server.ask(HELLO, max_tokens=40).choices[0].message.content == expected


def test_spoken_answers_are_the_same_whole_and_streamed(server):
    question = spoken(recording(chirps(9)))
    whole = server.ask(question, **SPEECH, extra_body={"ignore_eos": True})
    audio = whole.choices[0].message.audio
    assert whole.usage.prompt_tokens_details.audio_tokens > 10
    assert whole.usage.completion_tokens == 80
    assert whole.usage.completion_tokens_details.audio_tokens > 0
    stream = server.ask(question, **SPEECH, stream=True, extra_body={"ignore_eos": True})
    sounds = [choice.delta.audio for chunk in stream for choice in chunk.choices if choice.delta.audio]
    streamed = b"".join(base64.b64decode(sound.data) for sound in sounds if sound.data)
    assert len(streamed) == len(base64.b64decode(audio.data))
    difference = np.frombuffer(streamed, "<i2").astype(int) - np.frombuffer(base64.b64decode(audio.data), "<i2")
    # pieces cut elsewhere may round a sample the other way, by no more than the last bit
    assert np.abs(difference).max() <= 1
    assert "".join(sound.transcript or "" for sound in sounds) == audio.transcript
    assert sounds[-1].expires_at >= audio.expires_at


def test_a_spoken_answer_is_the_codecs_wave(server):
    from slm_plugin.speech.mel_kmeans import MelKmeansCodec

    audio = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    answer = server.ask(HELLO, **audio, extra_body={"ignore_eos": True}, max_tokens=200)
    wave, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(answer.choices[0].message.audio.data)))
    assert rate_hz == 24_000
    assert answer.usage.completion_tokens_details.audio_tokens > 0
    codec = MelKmeansCodec.load(server.codec)
    # a unit is 30 ms times the frames that it lasts, which is one at least
    assert len(wave) >= answer.usage.completion_tokens_details.audio_tokens * 24_000 / codec.rate_hz - 1
    assert np.abs(wave).max() > 0.01


def test_a_conversation_goes_on_with_the_spoken_answer(server):
    question = spoken(recording(chirps(9)))
    first = server.ask(question, **SPEECH, max_tokens=30, extra_body={"ignore_eos": True})
    reference = {"role": "assistant", "audio": {"id": first.choices[0].message.audio.id}}
    second = server.ask(question, reference, HELLO)
    alone = server.ask(HELLO).usage.prompt_tokens
    # the first prompt and its answer, the end of the turn, and the new turn without the beginning of text
    expected = first.usage.prompt_tokens + first.usage.completion_tokens + 1 + alone - 1
    assert second.usage.prompt_tokens == expected


# of 40 tokens, with two text tokens and three units in turn: 40 / 5 * 3 units
@pytest.mark.parametrize(
    ("interleave", "n_units"), [("text", 0), ("units", 40), ({"mode": "ratio", "ratio": [2, 3]}, 24)]
)
def test_the_engine_itself_keeps_to_a_constraint(server, interleave, n_units):
    body = {"interleave": interleave, "ignore_eos": True}
    answer = server.ask(HELLO, **SPEECH, max_tokens=40, extra_body=body)
    assert answer.usage.completion_tokens == 40
    assert answer.usage.completion_tokens_details.audio_tokens == n_units
    assert bool(answer.choices[0].message.audio.data) == (n_units > 0)


def test_a_recording_is_written_down_the_same_whole_and_streamed(server):
    file = base64.b64decode(recording(chirps(9)))
    form = {"model": "model", "file": file, "extra_body": {"max_tokens": 30}}
    whole = server.client.audio.transcriptions.create(**form)
    *deltas, done = server.client.audio.transcriptions.create(**form, stream=True)
    assert whole.text == done.text == "".join(event.delta for event in deltas)
    assert whole.usage.input_token_details.audio_tokens > 10


def test_the_same_seed_says_the_same(server):
    answers = {server.ask(HELLO, temperature=1, seed=seed).choices[0].message.content for seed in (1, 1, 2)}
    assert len(answers) == 2


def engine_metrics(server) -> dict[str, float]:
    """What vLLM says of its requests; it is the child with a port of its own."""
    (command,) = [
        child.cmdline()
        for child in psutil.Process(server.process.pid).children()
        if "vllm.entrypoints.openai.api_server" in child.cmdline()
    ]
    page = httpx.get(f"http://127.0.0.1:{command[command.index('--port') + 1]}/metrics").text

    def total(pattern: str) -> float:
        return sum(float(value) for value in re.findall(rf"^vllm:{pattern} (\S+)$", page, re.MULTILINE))

    return {
        "running": total(r"num_requests_running\{[^}]*\}"),
        "tokens": total(r"generation_tokens_total\{[^}]*\}"),
    }


def test_a_stream_that_is_left_stops_the_engine(server):
    before = engine_metrics(server)
    stream = server.ask(HELLO, stream=True, max_tokens=8000, extra_body={"ignore_eos": True})
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()
    while (after := engine_metrics(server))["running"]:
        time.sleep(0.1)
    # what is not stopped goes on to the last token
    assert after["tokens"] - before["tokens"] < 8000


def test_a_stop_string_stops_the_engine(server):
    # four of the letters that it says
    whole = server.ask(HELLO).choices[0].message.content
    before = engine_metrics(server)
    stopped = server.ask(HELLO, stop=whole[20:24], max_tokens=8000, extra_body={"ignore_eos": True})
    assert stopped.choices[0].message.content == whole[: whole.index(whole[20:24])]
    while (after := engine_metrics(server))["running"]:
        time.sleep(0.1)
    assert after["tokens"] - before["tokens"] < 8000


@pytest.mark.slow
def test_a_vllm_that_dies_is_told_with_the_end_of_its_log(tmp_path, codec):
    model = make_model(tmp_path / "model", units=UNITS)
    process = start(model, codec, "--engine-argument=--no-such-argument")
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "vLLM ended with code 2 while starting" in err
    assert "--no-such-argument" in err
    assert "Traceback" not in err
