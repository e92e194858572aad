"""Answers to sets of spoken questions, by a real model of random weights and the tiny world's codec."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import pyarrow as arrow
import pytest
import soundfile
import torch
import yaml
from peft import LoraConfig, get_peft_model
from pyarrow import parquet
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from slm_plugin.cli import make_app
from slm_plugin.data.upload import push
from slm_plugin.errors import DataError
from slm_plugin.plugins import Registry
from slm_plugin.speech import audio
from slm_plugin.speech.codecs import load_codec
from slm_plugin.vocabulary import units_to_text
from tiny_models import make_model

UNITS = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "units", units=UNITS)


@pytest.fixture(scope="module")
def questions(tmp_path_factory, root):
    """A set in the form of the published ones: recordings as bytes, and a damaged one among them."""
    folder = tmp_path_factory.mktemp("questions")
    recordings = [path.read_bytes() for path in sorted((root / "examples/tiny/audio").glob("*.wav"))[:4]]
    recordings.insert(2, b"no recording")
    rows = {
        "id": [f"q{number}" for number in range(5)],
        "audio": [{"bytes": recording, "path": None} for recording in recordings],
    }
    parquet.write_table(arrow.table(rows), folder / "test.parquet")
    return folder / "test.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(model, data, **more):
    content = {
        "model": str(model),
        "codec": "tiny",
        "data": data,
        "output": "out",
        "batch": 2,
        "engine": "transformers",
    }
    content |= {"sampling": {"max_new_tokens": 12}, **more}
    Path("infer.yaml").write_text(yaml.safe_dump(content))
    return content


def run():
    return CliRunner().invoke(make_app(), ["infer", "infer.yaml"], catch_exceptions=True)


def test_every_question_gets_tokens_text_and_sound_and_a_damaged_one_its_reason(folder, model, questions):
    config(model, [{"path": str(questions), "name": "spoken"}])
    result = run()
    assert result.exit_code == 0, result.output
    assert "5 questions, 1 not usable" in result.output
    assert [path.name for path in sorted(Path("out/spoken").iterdir())] == [f"part-0000{n}.parquet" for n in range(3)]
    loaded = datasets.load_dataset("parquet", data_files="out/spoken/*.parquet", split="train")
    rows = loaded.cast_column("audio", datasets.Audio(decode=False)).to_list()
    assert [row["id"] for row in rows] == ["q0", "q1", "q2", "q3", "q4"]
    assert [row["error"] is None for row in rows] == [True, True, False, True, True]
    assert rows[2]["error"].startswith("the recording cannot be read (Format not recognised); send wav, flac")
    codec = load_codec("tiny", Registry.load())
    first = datasets.Dataset.from_parquet(str(questions)).to_list()[0]["audio"]["bytes"]
    wave = audio.prepare(*audio.decode(first), codec.sample_rate_hz)
    assert rows[0]["question_units"] == list(codec.encode(wave).values)
    for row in rows:
        sound, rate_hz = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert rate_hz == codec.sample_rate_hz
        assert len(sound) == (len(codec.decode(row["units"])) if row["units"] else 0)
    assert any(row["units"] for row in rows)
    assert len(rows[0]["tokens"]) == 12
    assert not rows[0]["finished"]


def test_a_run_that_was_stopped_writes_only_what_is_missing(folder, model, questions):
    config(model, [{"path": str(questions), "name": "spoken"}])
    run()
    before = {path.name: path.read_bytes() for path in Path("out/spoken").iterdir()}
    Path("out/spoken/part-00001.parquet").unlink()
    kept = Path("out/spoken/part-00000.parquet").stat().st_mtime_ns
    result = run()
    assert "2 of 3 files were there already" in result.output
    assert Path("out/spoken/part-00000.parquet").stat().st_mtime_ns == kept
    assert {path.name: path.read_bytes() for path in Path("out/spoken").iterdir()} == before


def test_answers_of_other_settings_are_not_mixed_in(folder, model, questions):
    config(model, [{"path": str(questions), "name": "spoken"}])
    run()
    config(model, [{"path": str(questions), "name": "spoken"}], sampling={"max_new_tokens": 13})
    result = run()
    assert isinstance(result.exception, DataError)
    assert "with other settings; take another output folder" in str(result.exception)


def tokens_of(model, **more):
    config(model, [{"path": "q.jsonl", "units": "q"}], vocoder=False, **more)
    result = run()
    assert result.exit_code == 0, result.output
    return parquet.read_table(f"{more['output']}/q.jsonl/part-00000.parquet")["tokens"].to_pylist()


def test_a_discounted_adapter_answers_as_one_whose_alpha_is_smaller(folder, model):
    Path("q.jsonl").write_text(json.dumps({"q": units_to_text([1, 2, 3])}) + "\n")
    for name, alpha in (("whole", 32), ("half", 16)):
        torch.manual_seed(0)
        lora = LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(model), lora).save_pretrained(name)
    half = tokens_of(model, adapter="whole", lora_scale=0.5, output="a")
    assert half == tokens_of(model, adapter="half", output="b")
    assert half != tokens_of(model, adapter="whole", output="c")
    # a factor of 0 is the model itself
    assert tokens_of(model, adapter="whole", lora_scale=0.0, output="d") == tokens_of(model, output="e")
    assert Path("whole/adapter_config.json").is_file()


def test_a_factor_without_an_adapter_is_refused(folder, model):
    config(model, [{"path": "q.jsonl", "units": "q"}], lora_scale=0.5)
    assert "lora_scale 0.5 has nothing to act on; set adapter" in str(run().exception)


def test_units_in_place_of_recordings_and_no_vocoder(folder, model):
    rows = [{"q": units_to_text([1, 2, 3]), "id": 1}, {"q": units_to_text([4]), "id": 2}]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config(model, [{"path": "q.jsonl", "units": "q"}], vocoder=False)
    assert run().exit_code == 0
    table = parquet.read_table("out/q.jsonl/part-00000.parquet")
    assert table["question_units"].to_pylist() == [[1, 2, 3], [4]]
    assert "audio" not in table.column_names


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"path": "nowhere.parquet.d"}, "cannot be loaded"),
        ({"path": "q.jsonl", "audio": "sound"}, "has no column 'sound'"),
        ({"path": "q.jsonl", "audio": "a", "units": "b"}, "either audio or units"),
        ({"path": "q.jsonl", "splt": "x"}, "Did you mean 'split'?"),
    ],
)
def test_mistakes_are_told_in_a_line(folder, model, data, text, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    Path("q.jsonl").write_text('{"q": "<|1|>"}\n')
    config(model, [data])
    assert text in str(run().exception)


def test_the_published_forms_are_answered_as_they_are_and_keep_their_right_answers(folder, model, questions):
    rows = parquet.read_table(questions)
    given = {"question_audio": rows["audio"], "answer": [{"value": f"a{n}", "aliases": ["b"]} for n in range(5)]}
    Path("trivia/data").mkdir(parents=True)
    parquet.write_table(arrow.table(given), "trivia/data/validation-00000-of-00001.parquet")
    config(model, [{"path": "trivia", "n": 2}], vocoder=False)
    result = run()
    assert result.exit_code == 0, result.output
    table = parquet.read_table("out/trivia/part-00000.parquet")
    assert [answer["value"] for answer in table["given_answer"].to_pylist()] == ["a0", "a1"]
    # "answer" is what the model wrote, "question_audio" is left out as the recording it was asked with
    assert all(isinstance(answer, str) for answer in table["answer"].to_pylist())
    assert "question_audio" not in table.column_names


class FakeHub:
    """Remembers what it was asked for, in place of the hub's client."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.repositories: list[str] = []
        self.uploads: list[tuple[str, list[str]]] = []

    def create_repo(self, repo_id, *, repo_type, exist_ok, private):
        assert (repo_type, exist_ok, private) == ("dataset", True, True)
        if self.refuses:
            raise OSError("401 Unauthorized")
        self.repositories.append(repo_id)

    def upload_folder(self, *, repo_id, folder_path, path_in_repo, repo_type):
        assert (path_in_repo, repo_type) == ("data", "dataset")
        self.uploads.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def test_a_fake_hub_gets_every_set_as_a_repository_of_its_own(folder):
    Path("out/one").mkdir(parents=True)
    Path("out/one/part-00000.parquet").touch()
    hub = FakeHub()
    assert push(Path("out"), ["one"], "anna", hub) == ["anna/one"]
    assert hub.uploads == [("anna/one", ["part-00000.parquet"])]
    with pytest.raises(DataError, match="anna/one was not uploaded, what was made stays in out/one: 401"):
        push(Path("out"), ["one"], "anna", FakeHub(refuses=True))
