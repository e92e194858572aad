"""The committed values are those that the script makes, and every source in the package has one or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from golden.make import HERE, MAKERS, rows

BY_MODULE = {
    "adapters/folded.py": ["LoRA at a factor", "rank-stabilised LoRA", "DoRA"],
    "adapters/lora.py": ["LoRA at a factor", "rank-stabilised LoRA", "DoRA"],
    "adapters/scale.py": ["DoRA", "DoRA at a factor", "interpolated rows"],
    "alignment/ctc.py": ["CTC alignment"],
    "data/mixing.py": ["rows of replay"],
    "data/schedule.py": ["linear schedule of replay", "cosine schedule of replay", "turns of replay"],
    "data/surprise.py": ["Gumbel-top-k draw of replay"],
    "embedding.py": ["start of new embeddings"],
    "eval/metrics.py": ["average score", "backward transfer", "forward transfer", "forgetting", "forget percent"],
    "eval/rates.py": ["word error rate"],
    "eval/recogniser.py": ["recogniser of units"],
    "eval/statistics.py": ["bootstrap interval", "paired bootstrap"],
    "merge/arithmetic.py": ["task_arithmetic", "TIES merge"],
    "merge/dare.py": ["dare_linear", "dare_ties"],
    "merge/linear.py": ["linear merge"],
    "merge/task_arithmetic.py": ["task_arithmetic"],
    "merge/ties.py": ["TIES merge"],
    "mitigations/kl_anchor.py": ["KL anchor"],
    "mitigations/l2_anchor.py": ["L2 anchor"],
    "mitigations/llrd.py": ["layer-wise learning-rate decay"],
    "mitigations/replay.py": ["rows of replay", "turns of replay", "Gumbel-top-k draw of replay"],
    "speech/griffin_lim.py": ["Griffin-Lim"],
    "speech/hubert_kmeans.py": ["nearest centroid"],
    "speech/mel.py": ["mel filters", "log-mel spectrum", "cepstra"],
    "training/distillation.py": ["KL of distillation"],
}
WITHOUT_A_NUMBER = {
    "adapters/serving.py": "what vLLM takes",
    "doctor/estimate.py": "an estimate, beside measured sizes in tests/doctor",
    "eval/normalise.py": "words",
    "eval/probes/instruction_following.py": "lm-evaluation-harness calculates",
    "eval/probes/spoken_questions.py": "names of data sets",
    "eval/probes/text_similarity.py": "sacrebleu calculates",
    "eval/whisper.py": "transformers calculates",
    "experts/plan.py": "a configuration; the average is that of merge/linear.py",
    "generation/model.py": "a template of text",
    "speech/fit/kmeans.py": "scikit-learn calculates",
    "speech/interleave.py": "the form of a text",
    "speech/interleave_forms.py": "the form of a text",
    "speech/vocoder/synthesis.py": "a network, beside that of transformers in tests/speech/vocoder",
    "speech/vocoder/voices.py": "names of voices",
    "stages/asr.py": "the form of a text",
    "stages/sqa.py": "the form of a text",
    "stages/tts.py": "the form of a text",
    "text_decoder/extract.py": "names of weights",
    "speech/ogg.py": "the form of a file; libsndfile writes the ones of its test",
    "weights/durable.py": "a call of the operating system",
    "weights/writer.py": "a file format",
}


# PEFT takes seconds to import; tests/adapters compare with it in every run
@pytest.mark.parametrize(
    "maker", [pytest.param(name, marks=[pytest.mark.slow] if name == "by_peft" else []) for name in MAKERS]
)
def test_the_script_gives_what_is_committed(maker, stored):
    for row in rows(maker):
        committed = stored[row["algorithm"]]
        assert {**row, "value": 0, "made_by": 0} == {**committed, "value": 0, "made_by": 0}
        # libraries of other versions, on other processors, may round the last bits of float32 otherwise
        assert_close(row["value"], committed["value"])


def assert_close(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-5, abs=1e-12) if isinstance(expected, float) else expected)


def test_what_makes_the_values_never_imports_the_package():
    makers = [HERE / "make.py", HERE / "entry.py", *HERE.glob("by_*.py")]
    assert sorted(path.stem for path in makers) == sorted([*MAKERS, "make", "entry"])
    assert [path.name for path in makers if re.search("slm_plugin|slm_serve", path.read_text(encoding="utf-8"))] == []


def test_every_module_that_names_a_source_has_a_value_or_a_reason(root: Path):
    package = root / "slm_plugin"
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"^ *Source: ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert not BY_MODULE.keys() & WITHOUT_A_NUMBER.keys()
    assert naming - BY_MODULE.keys() == WITHOUT_A_NUMBER.keys()
    assert [name for name in BY_MODULE if not (package / name).is_file()] == []


def test_every_value_is_of_a_module(stored):
    assert {name for names in BY_MODULE.values() for name in names} == stored.keys()


def test_every_value_is_compared_in_a_test(stored):
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_[mtw]*.py"))
    # the schedules' names are put together
    assert [name for name in stored if f'"{name}"' not in tests and "schedule of replay" not in name] == []
