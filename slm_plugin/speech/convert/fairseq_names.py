"""Names of the tensors of wav2vec 2.0 and HuBERT in fairseq and fairseq2 -> those of transformers."""

from __future__ import annotations

import re

_BLOCK = r"^encoder\.layers\.(\d+)\."
_FRONT = r"^encoder_frontend\."

_FAIRSEQ = (
    (rf"{_BLOCK}self_attn\.", r"encoder.layers.\1.attention."),
    (rf"{_BLOCK}self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (rf"{_BLOCK}fc1\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (rf"{_BLOCK}fc2\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (rf"{_BLOCK}final_layer_norm\.", r"encoder.layers.\1.final_layer_norm."),
    (r"^encoder\.layer_norm\.", "encoder.layer_norm."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
)
_FAIRSEQ2 = (
    (rf"{_BLOCK}self_attn\.output_proj\.", r"encoder.layers.\1.attention.out_proj."),
    (rf"{_BLOCK}self_attn\.", r"encoder.layers.\1.attention."),
    (rf"{_BLOCK}self_attn_layer_norm\.", r"encoder.layers.\1.layer_norm."),
    (rf"{_BLOCK}ffn\.inner_proj\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (rf"{_BLOCK}ffn\.output_proj\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (rf"{_BLOCK}ffn_layer_norm\.", r"encoder.layers.\1.final_layer_norm."),
    (r"^encoder\.layer_norm\.", "encoder.layer_norm."),
    (rf"{_FRONT}layer_norm\.", "encoder.layer_norm."),
    (rf"{_FRONT}pos_encoder\.conv\.", "encoder.pos_conv_embed.conv."),
    (rf"{_FRONT}feature_extractor\.layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.conv."),
    (
        rf"{_FRONT}feature_extractor\.layers\.(\d+)\.(?:layer|group)_norm\.",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (rf"{_FRONT}post_extract_layer_norm\.", "feature_projection.layer_norm."),
    (rf"{_FRONT}model_dim_proj\.", "feature_projection.projection."),
)
# what pre-training needs and features do not
_UNUSED = re.compile(
    r"^(final_proj|final_target_proj|final_bert_proj|quantizer|vector_quantizer|project_q|masker|mask_emb$"
    r"|label_embs_concat$|encoder_frontend\.masker)"
)


def rename(name: str) -> str | None:
    """Return the name in transformers of a tensor of fairseq or fairseq2, "" for one that features do not need.

    None for a name that is neither.
    """
    if _UNUSED.match(name):
        return ""
    # the two agree where both know a name
    for pattern, replacement in (*_FAIRSEQ2, *_FAIRSEQ):
        renamed, found = re.subn(pattern, replacement, name)
        if found:
            return renamed
    return None
