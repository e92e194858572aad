"""End to end: a model writes its own replay set, and the next stage's training in the host replays it."""

from __future__ import annotations

import shutil

import pytest

from host.world import train_config
from replay_synthesis.test_synthesise import options
from replay_synthesis.world import UNITS, rows, train_world_model, write_rows
from slm_plugin import card
from slm_plugin.replay_synthesis.command import run

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def test_what_a_model_wrote_is_replayed_while_the_next_stage_is_trained(data, run_host, tmp_path):
    model = train_world_model(tmp_path / "model")
    folder = tmp_path / "data"
    # the data of the new stage, of other words but as many units
    shutil.copytree(data, folder)
    lines = (folder / "libri.jsonl").read_text()
    (folder / "libri.jsonl").write_text("".join(_fold(line) + "\n" for line in lines.splitlines()))
    run(options(model, folder, "llm", 5))
    for stage in ("asr", "tts"):
        prompts = write_rows(tmp_path / f"{stage}.jsonl", rows(stage))
        run(options(model, folder, stage, 6, prompts=prompts))
    sources = {"own_llm": 0.1, "own_asr": 0.1, "own_tts": 0.2}
    slm = {"stage": "tts", "units": {"count": UNITS}, "mitigations": [{"replay": {"sources": sources}}]}
    run_host(train_config(model, folder, tmp_path / "tts", stage="tts", slm=slm))
    assert card.read(tmp_path / "tts")["replay"] == {"own_llm": 4, "own_asr": 4, "own_tts": 8}


def _fold(line):
    import json
    import re

    row = json.loads(line)
    spoken = re.sub(r"<\|(\d+)\|>", lambda found: f"<|{int(found[1]) % UNITS}|>", row["interleaf"])
    return json.dumps({"transcription": row["transcription"], "interleaf": spoken})
