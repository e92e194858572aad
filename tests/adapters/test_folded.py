"""Adapters folded into their base tensor by tensor, beside PEFT's own merge."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from adapters.worlds import KINDS, TIED_KINDS, make_adapter, make_base, merged
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.weights.checkpoint import Checkpoint

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def folded_tensors(source):
    return {name: source.tensor(name) for name in source.names()}


def assert_same(ours, reference, dtype):
    """Compare with PEFT's merge in float32, rounded once: equal but for one unit in the last place."""
    for name, tensor in ours.items():
        assert tensor.dtype == dtype
        assert tensor.shape == reference[name].shape
        tolerance = 1e-6 if dtype == torch.float32 else 2**-7
        expected = reference[name].to(dtype).float()
        torch.testing.assert_close(tensor.float(), expected, rtol=tolerance, atol=1e-6, msg=name)
        assert (tensor.float() == expected).float().mean() > 0.99 or dtype == torch.float32


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_peft_s_merge(kind, dtype, tmp_path):
    base = make_base(tmp_path / "base", dtype)
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS[kind])
    ours = folded_tensors(FoldedCheckpoint(Checkpoint(base), LoraAdapter(adapter)))
    assert_same(ours, merged(base, adapter), dtype)
    assert any(not torch.equal(tensor, Checkpoint(base).tensor(name)) for name, tensor in ours.items())


@DTYPES
@pytest.mark.parametrize("kind", TIED_KINDS)
def test_it_equals_peft_s_merge_where_input_and_output_embeddings_are_one(kind, dtype, tmp_path):
    base = make_base(tmp_path / "base", dtype, tie=True)
    adapter = make_adapter(base, tmp_path / "adapter", **TIED_KINDS[kind])
    ours = folded_tensors(FoldedCheckpoint(Checkpoint(base), LoraAdapter(adapter)))
    assert "lm_head.weight" not in ours
    assert_same(ours, merged(base, adapter), dtype)


def test_adapters_stack(tmp_path):
    base = make_base(tmp_path / "base")
    first = make_adapter(base, tmp_path / "first", **KINDS["modules_to_save"])
    second = make_adapter(base, tmp_path / "second", seed=2, **KINDS["dora"])
    inner = FoldedCheckpoint(Checkpoint(base), LoraAdapter(first))
    ours = folded_tensors(FoldedCheckpoint(inner, LoraAdapter(second)))
    assert_same(ours, merged(base, first, second), torch.float32)


def test_rows_that_the_base_lacks_come_from_the_adapter(tmp_path):
    short, long = make_base(tmp_path / "short", rows=56), make_base(tmp_path / "long", rows=64)
    adapter = make_adapter(long, tmp_path / "adapter", **KINDS["modules_to_save"])
    folded = FoldedCheckpoint(Checkpoint(short), LoraAdapter(adapter))
    assert folded.shape("lm_head.weight") == (64, 32)
    saved = load_file(adapter / "adapter_model.safetensors")
    assert torch.equal(folded.tensor("lm_head.weight"), saved["base_model.model.lm_head.weight"])


def test_what_the_adapter_does_not_train_is_the_base_bit_by_bit(tmp_path):
    base = make_base(tmp_path / "base", torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter")
    folded = FoldedCheckpoint(Checkpoint(base), LoraAdapter(adapter))
    untouched = set(folded.names()) - set(LoraAdapter(adapter).modules())
    assert len(untouched) > 5
    assert all(torch.equal(folded.tensor(name), Checkpoint(base).tensor(name)) for name in untouched)
