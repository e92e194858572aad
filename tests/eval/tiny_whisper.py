"""A tiny random Whisper on disk, in the layout that the published ones have."""

from __future__ import annotations

from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
LONGEST = 14


def make_whisper(folder: Path, multilingual: bool = True, seed: int = 4) -> Path:
    """Write model, feature extractor, tokenizer and generation configuration; one letter is one token."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    letters = {token: number for number, token in enumerate(["Ġ", *"abcdefghijklmnopqrstuvwxyz"])}
    special = {token: len(letters) + number for number, token in enumerate(SPECIAL)}
    tokenizer = WhisperTokenizer(vocab={**letters, **special}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    timestamps = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    tokenizer.add_tokens(timestamps)
    config = WhisperConfig(
        vocab_size=len(letters) + len(special) + len(timestamps),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=LONGEST,
        # wide, so that what is said depends on what is heard and no two tokens are almost equally likely
        init_std=1.0,
        pad_token_id=special["<|endoftext|>"],
        bos_token_id=special["<|endoftext|>"],
        eos_token_id=special["<|endoftext|>"],
        decoder_start_token_id=special["<|startoftranscript|>"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
    known = {"lang_to_id": {"<|en|>": special["<|en|>"], "<|de|>": special["<|de|>"]}}
    known |= {"task_to_id": {"translate": special["<|translate|>"], "transcribe": special["<|transcribe|>"]}}
    model.generation_config = GenerationConfig(
        is_multilingual=multilingual,
        no_timestamps_token_id=special["<|notimestamps|>"],
        begin_suppress_tokens=[special["<|endoftext|>"]],
        # a trained model has learned not to write times where it is not asked to
        suppress_tokens=[*range(special["<|startoftranscript|>"], config.vocab_size)],
        max_length=LONGEST,
        pad_token_id=special["<|endoftext|>"],
        bos_token_id=special["<|endoftext|>"],
        eos_token_id=special["<|endoftext|>"],
        decoder_start_token_id=special["<|startoftranscript|>"],
        **(known if multilingual else {}),
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder
