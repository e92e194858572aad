"""The discount's arithmetic by hand and its properties, and adapters that cannot be read."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapters.worlds import KINDS, UNITS, edit_config, make_adapter, make_base, merged
from slm_plugin import card
from slm_plugin.adapters.check import require_fits, require_loadable, require_same_base
from slm_plugin.adapters.discount import write_discounted
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import Decomposed, LoraAdapter, LowRank
from slm_plugin.adapters.scale import interpolated, interpolated_rows, with_magnitude
from slm_plugin.errors import WeightsError
from slm_plugin.weights.checkpoint import Checkpoint

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("bases") / "base")


def test_the_update_is_the_factor_times_alpha_over_r_times_the_product():
    # 0.5 * (4 / 2) * [2; 3] [1 10] = [2 20; 3 30]
    update = LowRank(torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0, 10.0]]), 4 / 2)
    assert update.delta(0.5).tolist() == [[2, 20], [3, 30]]


def test_dora_turns_the_direction_and_moves_the_length():
    # base row (3, 4) has length 5; half of the update (0, 8) gives (3, 8) of length sqrt(73);
    # half way from length 5 to magnitude 9 is 7
    update = LowRank(torch.tensor([[1.0]]), torch.tensor([[0.0, 8.0]]), 1.0)
    found = with_magnitude(torch.tensor([[3.0, 4.0]]), Decomposed(update, torch.tensor([9.0]), axis=0), 0.5)
    torch.testing.assert_close(found, torch.tensor([[3.0, 8.0]]) * 7 / 73**0.5)


def test_rows_move_by_the_factor_but_unit_rows_and_new_rows_stay():
    base_VD, trained_VD = torch.zeros(4, 1), torch.full((5, 1), 8.0)
    # row 2 is a unit, row 4 is not in the base
    found = interpolated(base_VD, trained_VD, 0.25, {"first_id": 2, "count": 1})
    assert found.flatten().tolist() == [2, 2, 8, 2, 8]
    assert interpolated(base_VD, trained_VD, 0.25, None).flatten().tolist() == [2, 2, 2, 2, 8]


def test_a_matrix_too_short_to_hold_the_units_has_no_unit_rows():
    found = interpolated(torch.zeros(3, 2), torch.full((3, 2), 8.0), 0.25, {"first_id": 2, "count": 2})
    assert found.tolist() == [[2, 2]] * 3


def test_single_rows_move_by_the_same_rule():
    trained = torch.full((3, 1), 8.0)
    found = interpolated_rows(torch.zeros(4, 1), [0, 2, 9], trained, 0.25, {"first_id": 2, "count": 1})
    assert found.flatten().tolist() == [2, 8, 8]


@given(st.floats(0, 1), st.integers(0, 2**31))
def test_the_ends_are_exact_and_what_lies_between_is_between(factor, seed):
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    assert torch.equal(interpolated(before, after, 0.0, None), before)
    assert torch.equal(interpolated(before, after, 1.0, None), after)
    found = interpolated(before, after, factor, None)
    slack = 1e-5
    assert (found >= torch.minimum(before, after) - slack).all()
    assert (found <= torch.maximum(before, after) + slack).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep_alpha", [False, True], ids=["alpha", "matrices"])
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.5])
def test_peft_merges_a_discounted_copy_as_the_formula_says(kind, keep_alpha, factor, base, tmp_path):
    adapter = LoraAdapter(make_adapter(base, tmp_path / "adapter", **KINDS[kind]))
    write_discounted(adapter, tmp_path / "copy", factor, lambda: Checkpoint(base), True, keep_alpha)
    expected = FoldedCheckpoint(Checkpoint(base), adapter, factor, interpolate=True)
    found = merged(base, tmp_path / "copy")
    for name in expected.names():
        torch.testing.assert_close(expected.tensor(name), found[name], rtol=1e-5, atol=2e-6, msg=name)


def test_a_plain_discounted_copy_shares_the_weights_on_disk(base, tmp_path):
    adapter = LoraAdapter(make_adapter(base, tmp_path / "adapter"))
    write_discounted(adapter, tmp_path / "copy", 0.5, lambda: pytest.fail("the base is not needed"))
    assert (tmp_path / "copy" / "adapter_model.safetensors").resolve() == adapter.path.resolve()
    assert json.loads((tmp_path / "copy" / "adapter_config.json").read_text())["lora_alpha"] == 8
    assert adapter.config["lora_alpha"] == 16


def test_the_scale_follows_peft_s_patterns(base, tmp_path):
    adapter = LoraAdapter(make_adapter(base, tmp_path / "adapter", **KINDS["patterns"]))
    # layer 0's query: alpha 3, r 2; layer 1's: alpha 16, r 2; values: alpha 32, r 4; layer 1's down: 16, 8
    assert adapter.scale(QUERY) == 1.5
    assert adapter.scale(QUERY.replace("0", "1")) == 8
    assert adapter.scale("model.layers.0.self_attn.v_proj.weight") == 8
    assert adapter.scale("model.layers.1.mlp.down_proj.weight") == 2
    rank_stabilised = LoraAdapter(make_adapter(base, tmp_path / "rs", use_rslora=True))
    assert rank_stabilised.scale(QUERY) == 8  # 16 / sqrt(4)


def test_dora_has_no_plain_update(base, tmp_path):
    adapter = LoraAdapter(make_adapter(base, tmp_path / "adapter", use_dora=True))
    assert adapter.low_rank(QUERY) is None
    assert adapter.decomposed(QUERY).magnitude.shape == (32,)
    assert QUERY in adapter.modules()


def damage(adapter, change):
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(change(tensors), adapter / "adapter_model.safetensors")


def keep_all_but(part):
    return lambda tensors: {name: x for name, x in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a / "adapter_config.json").unlink(), "has no adapter_config.json; a LoRA adapter"),
        (lambda a: (a / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
        (lambda a: (a / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda a: (a / "adapter_model.safetensors").write_bytes(b"12345678"), "safetensors is damaged"),
        (lambda a: edit_config(a, peft_type="OFT"), "peft_type is 'OFT'; only LORA is accepted"),
        (lambda a: edit_config(a, init_lora_weights="pissa_niter_4"), "'pissa_niter_4' changed the base itself"),
        (lambda a: edit_config(a, lora_bias=True), "lora_bias cannot be folded into the weights of a base"),
        (lambda a: edit_config(a, r=0), "r must be above 0"),
        (lambda a: damage(a, keep_all_but("layers.0.self_attn.q_proj.lora_A")), f"only one .* of '{QUERY}'"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_one_clear_line(spoil, message, base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter")
    spoil(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        LoraAdapter(folder).low_rank(QUERY)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(WeightsError, match=r"away is not a folder with an adapter_config\.json"):
        LoraAdapter(tmp_path / "away")


def test_values_that_are_not_finite_are_refused_with_their_tensor(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter")
    damage(folder, lambda tensors: {name: x * float("inf") for name, x in tensors.items()})
    with pytest.raises(WeightsError, match=r"lora_\w\.weight' holds values that are not finite"):
        FoldedCheckpoint(Checkpoint(base), LoraAdapter(folder)).tensor(QUERY)
    with pytest.raises(WeightsError, match="not finite"):
        require_loadable(folder, {name: Checkpoint(base).shape(name) for name in Checkpoint(base).names()})


def test_the_fingerprint_decides_and_not_the_name(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter")
    require_same_base(folder, base)
    moved = tmp_path / "moved"
    moved.symlink_to(base)
    require_same_base(folder, moved)
    other = make_base(tmp_path / "other", seed=5)
    with pytest.raises(WeightsError, match=rf"was trained on {base} \(fingerprint \w+\), not on {other} \(finger"):
        require_same_base(folder, other)


def test_without_a_card_shapes_decide(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter")
    (folder / card.FILE_NAME).unlink()
    require_same_base(folder, make_base(tmp_path / "other", seed=5))
    wide = make_adapter(base, tmp_path / "wide")
    damage(wide, lambda tensors: {n: x.repeat(1, 2) if "_A" in n else x for n, x in tensors.items()})
    with pytest.raises(WeightsError, match=r"needs 'model\.layers\.0\.mlp\.down_proj\.weight' of shape \(32, 96\)"):
        require_fits(LoraAdapter(wide), Checkpoint(base))


def test_an_adapter_of_another_architecture_is_refused_with_the_nearest_name(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter")
    damage(folder, lambda tensors: {name.replace("q_proj", "q_prj"): x for name, x in tensors.items()})
    message = (
        r"changes 2 weight\(s\) that its base does not have, such as 'model\.layers\.0\.self_attn\.q_prj\.weight'"
    )
    with pytest.raises(WeightsError, match=message + rf".*Did you mean '{QUERY}'\?$"):
        FoldedCheckpoint(Checkpoint(base), LoraAdapter(folder))


def test_a_head_trained_apart_from_tied_embeddings_is_refused(base, tmp_path):
    tied = make_base(tmp_path / "tied", tie=True)
    folder = make_adapter(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    with pytest.raises(WeightsError, match=r"'lm_head\.weight': .* or the base ties that weight to its"):
        FoldedCheckpoint(Checkpoint(tied), LoraAdapter(folder))


def test_rows_without_their_ids_are_refused(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter", **KINDS["rows"])
    edit_config(folder, trainable_token_indices={"embed_tokens": [3]})
    with pytest.raises(WeightsError, match=r"lists 1 trainable_token_indices for 'model\.embed_tokens\.weight'"):
        LoraAdapter(folder).rows("model.embed_tokens.weight")


def test_units_of_the_card_are_those_of_the_interpolation(base, tmp_path):
    folder = make_adapter(base, tmp_path / "adapter", **KINDS["modules_to_save"])
    name = "model.embed_tokens.weight"
    found = FoldedCheckpoint(Checkpoint(base), LoraAdapter(folder), 0.5, interpolate=True).tensor(name)
    trained, before = LoraAdapter(folder).replacement(name), Checkpoint(base).tensor(name)
    first, end = UNITS["first_id"], UNITS["first_id"] + UNITS["count"]
    assert torch.equal(found[first:end], trained[first:end])
    torch.testing.assert_close(found[:first], (trained + before)[:first] / 2)
    torch.testing.assert_close(found[end:], (trained + before)[end:] / 2)
