"""Tokenizers of the form of the usual model families: their special tokens and how their chat templates render.

The vocabulary is that of ``tiny_models``; the chat templates render what the published ones do for text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_models import make_model, make_tokenizer

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LLAMA_3 = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{- strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
_QWEN_3 = (
    "{%- for message in messages %}{%- set content = message['content'] %}"
    "{%- if message['role'] == 'assistant' %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}"
    "{{- '<|im_start|>assistant\n' }}{%- if loop.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{{- content + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    "{%- endif %}"
)
_GEMMA_3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set first = messages[0]['content'] + '\n\n' %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set first = '' %}{%- endif %}{%- for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ (first if loop.first else '') + message['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{%- endif %}"
)
_MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] + '\n\n' %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}{{- bos_token }}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{- '[INST] ' + (system if loop.last else '') + message['content'] + '[/INST]' }}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}"
    "{%- else %}{{- raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}"
)
_PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_PHI_4 = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_PHI_4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _with_default(system: str) -> str:
    return (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        + system
        + "<|im_end|>\n' }}{% endif %}"
        + _CHATML
    )


@dataclass(frozen=True)
class Family:
    """The form of a family of models.

    Attributes:
        name: As the documentation calls it.
        template: LLaMA-Factory's template for it.
        chat_template: How its own one renders.
        tokens: Special tokens of its turns.
        end: Its end of a sequence, which ends an answer.
        begin: Its beginning of a sequence; None without.
        changed: Whether an export replaces its chat template.
    """

    name: str
    template: str
    chat_template: str
    tokens: tuple[str, ...]
    end: str
    begin: str | None = None
    changed: bool = True

    def tokenizer(self, units: int = 0) -> Any:
        """Return a tokenizer of this form."""
        from slm_plugin.vocabulary import UnitVocabulary

        tokenizer = make_tokenizer()
        tokenizer.add_tokens([*self.tokens, *([self.begin] if self.begin else [])], special_tokens=True)
        tokenizer.bos_token, tokenizer.eos_token = self.begin, self.end
        tokenizer.chat_template = self.chat_template
        if units:
            UnitVocabulary.extend(tokenizer, units)
        return tokenizer

    def model(self, folder: Path) -> Path:
        """Write a tiny random model with a tokenizer of this form."""
        return make_model(folder, tokenizer=self.tokenizer())


_TURNS = ("<|im_start|>", "<|im_end|>")
QWEN_3_THOUGHT = ("<think>", "</think>")
FAMILIES = (
    Family("Llama 3", "llama3", _LLAMA_3, (), "<|eot_id|>", "<|begin_of_text|>"),
    Family(
        "Qwen 2.5",
        "qwen",
        _with_default("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
        (*_TURNS, "<|endoftext|>"),
        "<|im_end|>",
        changed=False,
    ),
    Family("Qwen 3", "qwen3", _QWEN_3, (*_TURNS, *QWEN_3_THOUGHT, "<|endoftext|>"), "<|im_end|>"),
    Family(
        "SmolLM2",
        "smollm2",
        _with_default("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        _TURNS,
        "<|im_end|>",
        "<|im_start|>",
    ),
    Family("Gemma 3", "gemma3", _GEMMA_3, ("<start_of_turn>", "<end_of_turn>", "<eos>"), "<eos>", "<bos>", False),
    Family("Mistral", "mistral", _MISTRAL, ("[INST]", "[/INST]", "</s>"), "</s>", "<s>", False),
    Family("Phi 3", "phi", _PHI_3, ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|end|>", "<s>", False),
    Family(
        "Phi 4 mini",
        "phi4_mini",
        _PHI_4_MINI,
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|tool|>", "<|/tool|>"),
        "<|end|>",
        changed=False,
    ),
    Family("Phi 4", "phi4", _PHI_4, (*_TURNS, "<|im_sep|>"), "<|im_end|>", changed=False),
)
BY_NAME = {family.name: family for family in FAMILIES}
