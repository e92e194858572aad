"""Models that are no language models are merged as well."""

from __future__ import annotations

import pytest
import torch

from merge.conftest import members
from slm_plugin.merge.plan import parse_merge
from slm_plugin.merge.run import merge


def tiny_whisper(folder, seed):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    sizes = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
    config = WhisperConfig(vocab_size=60, d_model=32, num_mel_bins=8, encoder_ffn_dim=32, decoder_ffn_dim=32, **sizes,
                           max_source_positions=30, max_target_positions=20, pad_token_id=0, bos_token_id=1,
                           eos_token_id=2, decoder_start_token_id=3)  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tiny_ctc(folder, seed):
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(seed)
    config = Wav2Vec2Config(vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                            intermediate_size=32, conv_dim=(16, 16), conv_kernel=(5, 3), conv_stride=(4, 2),
                            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
                            num_feat_extract_layers=2)  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "kind"), [(tiny_whisper, "WhisperForConditionalGeneration"), (tiny_ctc, "Wav2Vec2ForCTC")]
)
def test_any_checkpoint_of_transformers_is_averaged(make, kind, registry, tmp_path):
    import transformers

    folders = [make(tmp_path / f"m{seed}", seed) for seed in range(3)]
    report = merge(
        parse_merge({"method": "linear", "models": members(folders, (0.5, 0.3, 0.2))}, registry, "merge"),
        tmp_path / "out",
    )
    assert report.tokenizer_from is None
    load = getattr(transformers, kind).from_pretrained
    merged, *parts = (load(folder).state_dict() for folder in (tmp_path / "out", *folders))
    for name, tensor in merged.items():
        expected = sum(w * part[name] for w, part in zip((0.5, 0.3, 0.2), parts, strict=True))
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
