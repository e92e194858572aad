"""The text decoder of an Mllama as a Llama: the same numbers, the same tokenizer, and one line for every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, MllamaForConditionalGeneration

from slm_plugin import card
from slm_plugin.cli import make_app
from slm_plugin.errors import VocabularyError, WeightsError
from slm_plugin.text_decoder.extract import extract_text_decoder
from slm_plugin.weights.checkpoint import Checkpoint
from text_decoder.mllama import CROSS_ATTENTION_LAYERS, IMAGE, N_LAYERS, make_mllama

KEPT = [0, 2, 4]
N_TOKENS = 469


@pytest.fixture(scope="module")
def ids():
    # longer than the 64 positions that this model's llama3 rope scaling starts from
    return torch.randint(0, N_TOKENS, (2, 150), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def whole(mllama):
    return MllamaForConditionalGeneration.from_pretrained(mllama, dtype=torch.float32).eval()


def copy_of(folder: Path, destination: Path) -> Path:
    shutil.copytree(folder, destination)
    return destination


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@torch.no_grad()
def test_it_gives_the_logits_of_the_whole_model_on_text_bit_by_bit(whole, decoder, ids):
    llama = AutoModelForCausalLM.from_pretrained(decoder, dtype=torch.float32).eval()
    assert type(llama) is LlamaForCausalLM
    expected = whole(input_ids=ids).logits
    assert expected.std() > 0.1
    assert torch.equal(llama(input_ids=ids).logits, expected)
    padded = torch.ones_like(ids)
    padded[0, :40] = 0
    assert torch.equal(
        llama(input_ids=ids, attention_mask=padded).logits, whole(input_ids=ids, attention_mask=padded).logits
    )


@torch.no_grad()
def test_it_generates_what_the_whole_model_generates(whole, decoder, ids):
    llama = AutoModelForCausalLM.from_pretrained(decoder, dtype=torch.float32).eval()
    settings = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "temperature": None}
    assert torch.equal(llama.generate(ids[:1, :9], **settings), whole.generate(ids[:1, :9], **settings))


@torch.no_grad()
def test_the_layers_left_out_would_have_mattered_with_an_image(whole, ids):
    image = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(1))
    text = whole(input_ids=ids).logits
    seen = whole.model.language_model(input_ids=ids, cross_attention_states=image).last_hidden_state
    assert not torch.allclose(whole.lm_head(seen), text, atol=0.01)


def test_layers_are_renumbered_and_the_extra_embedding_rows_cut(mllama, decoder):
    # layers 0, 2, 4 of 5 become 0, 1, 2; of the embedding's 477 rows those of the 469 tokens of the head stay
    before, after = Checkpoint(mllama), Checkpoint(decoder)
    assert sorted([*KEPT, *CROSS_ATTENTION_LAYERS]) == list(range(N_LAYERS))
    # 9 tensors a layer, two embeddings, the last norm
    assert len(after.names()) == 9 * len(KEPT) + 3
    for number, original in enumerate(KEPT):
        for part in ("self_attn.v_proj", "mlp.down_proj", "post_attention_layernorm"):
            name = f"language_model.model.layers.{original}.{part}.weight"
            assert torch.equal(after.tensor(f"model.layers.{number}.{part}.weight"), before.tensor(name))
    embedding = before.tensor("language_model.model.embed_tokens.weight")
    assert embedding.shape[0] == N_TOKENS + 8
    assert torch.equal(after.tensor("model.embed_tokens.weight"), embedding[:N_TOKENS])


def test_the_configuration_is_that_of_the_text_model(mllama, decoder):
    text = json.loads((mllama / "config.json").read_text())["text_config"]
    config = json.loads((decoder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["model_type"], config["num_hidden_layers"], config["vocab_size"]) == ("llama", 3, N_TOKENS)
    assert (config["tie_word_embeddings"], config["dtype"]) == (False, "float32")
    for key in ("rope_parameters", "rms_norm_eps", "eos_token_id", "pad_token_id", "max_position_embeddings"):
        assert config[key] == text[key], key
    assert not (decoder / "preprocessor_config.json").exists()
    assert (decoder / "generation_config.json").read_bytes() == (mllama / "generation_config.json").read_bytes()
    recorded = card.read(decoder)["text_decoder_of"]
    assert recorded["fingerprint"] == card.fingerprint(mllama)
    assert (recorded["layers"], recorded["tokens_left_out"]) == (KEPT, [IMAGE])


def test_the_tokenizer_reads_text_as_before_and_knows_no_image(mllama, decoder):
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (mllama, decoder))
    assert (len(before), len(after)) == (N_TOKENS + 1, N_TOKENS)
    assert IMAGE not in after.get_vocab()
    text = "hello world <|eot_id|> please repeat"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    chat = [{"role": "user", "content": "hello"}]
    assert after.apply_chat_template(chat, tokenize=False) == before.apply_chat_template(chat, tokenize=False)
    # text that spells the token stays text: an id without a row would end a run
    assert max(after(f"look {IMAGE} here")["input_ids"]) < N_TOKENS


def test_files_in_the_form_of_the_hub_are_read(mllama, decoder, tmp_path):
    old = copy_of(mllama, tmp_path / "old")
    tokens = {str(entry["id"]): entry for entry in json.loads((old / "tokenizer.json").read_text())["added_tokens"]}
    template = (old / "chat_template.jinja").read_text()
    (old / "chat_template.jinja").unlink()
    (old / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    settings = {"added_tokens_decoder": tokens, "image_token": IMAGE, "processor_class": "MllamaProcessor"}
    edit(old / "tokenizer_config.json", **settings, tokenizer_class="PreTrainedTokenizerFast")
    (old / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": [{"content": IMAGE}]}))
    new = extract_text_decoder(old, tmp_path / "new").folder
    assert IMAGE not in "".join(path.read_text() for path in new.glob("*token*.json"))
    assert "MllamaProcessor" not in (new / "tokenizer_config.json").read_text()
    tokenizer = AutoTokenizer.from_pretrained(new)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(decoder).get_vocab()
    assert tokenizer.chat_template == template


@torch.no_grad()
def test_a_configuration_in_the_form_of_the_hub_is_read(mllama, decoder, whole, ids, tmp_path):
    old = copy_of(mllama, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    # keys that transformers 4 wrote, defaults of generation among them
    text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": "bfloat16"}
    text |= {"_name_or_path": "", "add_cross_attention": False, "temperature": 1.0, "num_beams": 1, "pruned_heads": {}}
    edit(old / "config.json", text_config=text, torch_dtype="bfloat16")
    new = extract_text_decoder(old, tmp_path / "new").folder
    expected, found = (json.loads((folder / "config.json").read_text()) for folder in (decoder, new))
    assert found == expected
    assert torch.equal(LlamaForCausalLM.from_pretrained(new)(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_shards_on_both_sides_give_the_same_weights(decoder, tmp_path):
    sharded = make_mllama(tmp_path / "sharded", "50KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    done = extract_text_decoder(sharded, tmp_path / "out", max_shard_bytes=100_000)
    assert len(list(done.folder.glob("model-*.safetensors"))) > 2
    plain, found = Checkpoint(decoder), Checkpoint(done.folder)
    assert found.names() == plain.names()
    assert all(torch.equal(found.tensor(name), plain.tensor(name)) for name in plain.names())
    assert LlamaForCausalLM.from_pretrained(done.folder).num_parameters() == done.n_parameters


def test_names_as_transformers_5_has_them_and_half_precision_are_read(whole, tmp_path, mllama):
    from safetensors.torch import save_file

    new = copy_of(mllama, tmp_path / "new")
    # the text decoder's names in memory: model.language_model.layers..., lm_head.weight
    save_file({name: tensor.bfloat16() for name, tensor in whole.state_dict().items()}, new / "model.safetensors")
    done = extract_text_decoder(new, tmp_path / "out")
    with safe_open(done.folder / "model.safetensors", "pt") as file:
        kept = file.get_tensor("model.layers.1.mlp.up_proj.weight")
    assert torch.equal(kept, whole.model.language_model.layers[2].mlp.up_proj.weight.bfloat16())
    assert json.loads((done.folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_other_kinds_of_models_are_refused(decoder, tmp_path):
    with pytest.raises(WeightsError, match="kind 'llama', not an Mllama") as error:
        extract_text_decoder(decoder, tmp_path / "out")
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=r"no config\.json"):
        extract_text_decoder(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_named_and_nothing_is_written(tmp_path):
    sharded = make_mllama(tmp_path / "sharded", "50KB")
    gone = sorted(sharded.glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(WeightsError, match=gone.name) as error:
        extract_text_decoder(sharded, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sharded"]


def test_a_missing_tensor_is_named(mllama, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = copy_of(mllama, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    del tensors["language_model.model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 1 tensor\(s\).*layers\.2\.mlp\.up_proj"):
        extract_text_decoder(broken, tmp_path / "out")


def test_the_model_itself_is_never_written_over(mllama):
    before = card.fingerprint(mllama)
    with pytest.raises(WeightsError, match="is the model itself"):
        extract_text_decoder(mllama, mllama)
    assert card.fingerprint(mllama) == before


def test_a_tokenizer_with_ordinary_tokens_behind_the_last_row_is_refused(mllama, tmp_path):
    broken = copy_of(mllama, tmp_path / "broken")
    tokenizer = json.loads((broken / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["strange"] = 900
    (broken / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(VocabularyError, match="'strange' among them, lie behind the 469 rows"):
        extract_text_decoder(broken, tmp_path / "out")
    (broken / "tokenizer.json").unlink()
    with pytest.raises(VocabularyError, match=r"has no tokenizer\.json"):
        extract_text_decoder(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb_says_what_it_left_out(mllama, tmp_path):
    from typer.testing import CliRunner

    done = CliRunner().invoke(make_app(), ["extract-text", str(mllama), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "3 layers, 469 tokens" in done.output
    assert f"cross-attention layers 1, 3; tokens {IMAGE}" in done.output


def test_a_name_on_the_hub_is_fetched_and_its_absence_is_one_line(mllama, tmp_path, monkeypatch):
    import huggingface_hub

    from slm_plugin.text_decoder.command import extract_text

    with pytest.raises(WeightsError, match="meta-llama/none is no folder here and cannot be fetched") as error:
        extract_text("meta-llama/none", tmp_path / "out")
    assert "\n" not in str(error.value)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(mllama))
    extract_text("meta-llama/some", tmp_path / "out")
    assert asked == ["meta-llama/some"]
    assert (tmp_path / "out" / "model.safetensors").is_file()
