"""``slm.probes``: what is accepted, when a skill has fallen, and that looking at a model changes nothing."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
import yaml

from slm_plugin.config import parse_block
from slm_plugin.errors import ConfigError
from slm_plugin.training.undisturbed import undisturbed


def parsed(registry, **changes):
    skills = [
        {"skill": "text_qa", "probe": "text_match", "options": {"data": "questions.jsonl"}},
        {"skill": "wer", "probe": "speech_recognition", "options": {"data": "speech.jsonl", "examples": 1}},
    ]
    probes = {"every_steps": 10, "skills": skills, **changes}
    return parse_block({"stage": "tts", "units": {"codec": "tiny"}, "probes": probes}, registry).probes


def test_samples_are_how_many_examples_a_probe_keeps_unless_it_is_told(registry):
    found = parsed(registry, samples=7).watched
    assert [watched.probe.options.examples for watched in found] == [7, 1]


def test_a_floor_is_the_lowest_score_or_the_highest_error_rate(registry):
    guard = [{"skill": "text_qa", "floor": 0.5}, {"skill": "wer", "floor": 0.2}]
    text, wer = parsed(registry, guard=guard).watched
    assert [text.holds(value) for value in (0.49, 0.5, 1.0)] == [False, True, True]
    assert [wer.holds(value) for value in (0.1, 0.2, 0.21)] == [True, True, False]


def test_only_what_was_good_enough_before_can_fall(registry):
    (text, wer) = parsed(registry, guard=[{"skill": "text_qa", "floor": 0.5}]).watched
    assert text.has_fallen(0.4, [{"loss": 1.0}, {"eval_text_qa": 0.6}])
    assert not text.has_fallen(0.4, [{"eval_text_qa": 0.45}])
    assert not text.has_fallen(0.5, [{"eval_text_qa": 0.9}])
    assert not wer.has_fallen(2.0, [{"eval_wer": 0.1}])


def test_all_mistakes_are_named_at_once_with_the_nearest_names(registry):
    skills = [
        {"skill": "text_qa", "probe": "text_mach", "options": {"data": "x"}},
        {"skill": "loss", "probe": "text_match", "options": {"data": "x", "lenght": 3}},
        {"skill": "loss", "probe": "perplexity", "options": {"data": "x"}},
    ]
    with pytest.raises(ConfigError) as caught:
        parsed(registry, skills=skills, guard=[{"skill": "text_qs", "floor": 0.5}], codec="tinny")
    text = str(caught.value)
    for part in (
        "slm.probes.skills[0].probe: no probe is called 'text_mach'. Did you mean 'text_match'?",
        "slm.probes.skills[1].skill: the host logs an eval_loss of its own",
        "slm.probes.skills[1].options.lenght: unknown key.",
        "slm.probes.skills[2].skill: two skills are called 'loss'.",
        "slm.probes.guard[0].skill: no skill is called 'text_qs'. Did you mean 'text_qa'?",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("codec", "message"), [("tinny", "Did you mean 'tiny'?"), ("tiny", "has 100 units, the vocabulary 50")]
)
def test_a_codec_must_exist_and_fit_the_vocabulary(codec, message, registry):
    skills = [{"skill": "text_qa", "probe": "text_match", "options": {"data": "x"}}]
    block = {"units": {"count": 50}, "probes": {"every_steps": 1, "skills": skills, "codec": codec}}
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_block(block, registry)


def test_the_yaml_of_the_page_is_accepted(root, registry):
    (text,) = re.findall(r"```yaml\n(.*?)```", (root / "docs/probes_during_training.md").read_text(), re.DOTALL)
    found = parse_block(yaml.safe_load(text)["slm"], registry).probes
    assert found is not None
    assert [watched.floor for watched in found.watched] == [0.5, None]


def test_generators_and_modes_are_as_before_even_after_an_error():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    model[1].eval()
    model[0].generation_config = "its own"
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)

    def disturb():
        with undisturbed(model):
            model.eval()
            model[1].train()
            model[0].generation_config = model[1].generation_config = "another"
            random.random()
            np.random.random()
            torch.rand(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        disturb()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
    assert model[0].generation_config == "its own"
    assert not hasattr(model[1], "generation_config")
    # the outer one and its first layer train, the inner ones do not
    assert [module.training for module in model.modules()] == [True, True, False, False]
