"""Rows that say which replay source they come from, from the data set to a mitigation's loss."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from host.world import UNITS, train_config
from slm_plugin.errors import ConfigError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.host import runtime
from slm_plugin.plugins import Registry
from slm_plugin.strict import Strict

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


class Watcher:
    """Notes the source and the ids of every row; adds nothing to the loss."""

    wants_sources = True
    seen: list

    class Options(Strict):
        """None."""

    def __init__(self, options):
        self.seen = type(self).seen

    @hookimpl
    def slm_extra_loss(self, inputs):
        source = inputs["slm_source"]
        assert source.dtype == torch.int64
        assert source.shape == inputs["input_ids"].shape[:1]
        self.seen += [(int(k), tuple(ids.tolist())) for k, ids in zip(source, inputs["input_ids"], strict=True)]


class Blind(Watcher):
    """The same, without asking for sources."""

    wants_sources = False

    @hookimpl
    def slm_extra_loss(self, inputs):
        assert "slm_source" not in inputs
        self.seen.append("called")


class Plugin:
    @hookimpl
    def slm_register_mitigations(self, register):
        register("watcher", Watcher)
        register("blind", Blind)


@pytest.fixture
def seen(monkeypatch):
    found = []
    monkeypatch.setattr(Watcher, "seen", found, raising=False)
    monkeypatch.setitem(runtime._state, "registry", Registry.load([Plugin()]))
    return found


def block(sources=None, watcher="watcher", **options):
    replay = [{"replay": {"sources": sources, **options}}] if sources else []
    return {"stage": "tts", "units": {"count": UNITS}, "mitigations": [*replay, watcher]}


@pytest.fixture
def one_epoch(units_base, data, tmp_path):
    def config(slm, **changes):
        once = {"max_steps": -1, "num_train_epochs": 1.0, **changes}
        return train_config(units_base, data, tmp_path / "tts", stage="tts", slm=slm, **once)

    return config


def kinds(seen, units_base):
    """What the rows themselves say they are: speech asked for, speech given, or neither."""
    tokenizer = AutoTokenizer.from_pretrained(units_base)
    for _, ids in seen:
        user = tokenizer.decode(ids).split("<|eot_id|>")[0]
        yield 2 if "<|3" in user or "<|1" in user else 0 if "speak out loud" in user else 1


@pytest.mark.parametrize("options", [{}, {"resample": "epoch"}], ids=["once", "epoch"])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_row_says_which_source_it_is_from(options, workers, one_epoch, units_base, run_host, seen):
    slm = block({"llm": 0.25, "asr": 0.5}, **options)
    run_host(one_epoch(slm, dataloader_num_workers=workers))
    # 40 rows of tts, floor(.25 * 40) = 10 of llm, floor(.5 * 40) = 20 of asr
    assert [sum(k == source for k, _ in seen) for source in (0, 1, 2)] == [40, 10, 20]
    assert [k for k, _ in seen] == list(kinds(seen, units_base))


def test_without_replay_every_row_is_of_the_current_stage(one_epoch, run_host, seen):
    run_host(one_epoch(block()))
    assert [k for k, _ in seen] == [0] * 40


def test_streamed_rows_say_it_too(one_epoch, units_base, run_host, seen):
    streamed = {"streaming": True, "max_steps": 5, "dataloader_num_workers": 1, "buffer_size": 4}
    run_host(one_epoch(block({"llm": 0.5, "asr": 0.5}), **streamed))
    assert len(seen) == 20
    assert {k for k, _ in seen} == {0, 1, 2}
    assert [k for k, _ in seen] == list(kinds(seen, units_base))


@pytest.mark.parametrize("sources", [None, {"llm": 0.25, "asr": 0.5}], ids=["alone", "replayed"])
def test_knowing_the_source_changes_no_bit_of_training(sources, one_epoch, run_host, tmp_path, seen):
    for name in ("watcher", "blind"):
        run_host({**one_epoch(block(sources, name)), "output_dir": str(tmp_path / name)})
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("watcher", "blind"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "called" in seen


def test_packing_is_refused_because_a_packed_row_has_several_sources(one_epoch, run_host, seen):
    with pytest.raises(ConfigError, match="packing joins rows; set packing: false"):
        run_host(one_epoch(block({"llm": 0.25}), packing=True))
    assert not seen
