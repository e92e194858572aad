import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from slm_plugin.errors import VocabularyError
from slm_plugin.vocabulary import units_to_text
from slm_serve.errors import RequestError
from slm_serve.prompt import Ids, PromptBuilder, Turn


@pytest.fixture(scope="module")
def builder(tokenizer, vocabulary):
    return PromptBuilder(tokenizer, vocabulary)


def template_ids(tokenizer, *messages):
    chat = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: "<|" not in text)


@given(system=words, question=words, answer=words, again=words)
def test_a_written_chat_is_the_chat_templates_prompt(tokenizer, builder, system, question, answer, again):
    turns = [("system", system), ("user", question), ("assistant", answer), ("user", again)]
    assert builder.build([Turn(role, (text,)) for role, text in turns]) == template_ids(tokenizer, *turns)


@given(st.lists(st.integers(0, 49), max_size=20), words, words)
def test_a_spoken_turn_is_the_training_prompt(tokenizer, vocabulary, builder, units, before, behind):
    part = Ids(tuple(vocabulary.ids(units)))
    expected = template_ids(tokenizer, ("user", units_to_text(units)))
    assert builder.build([Turn("user", (part,))]) == expected
    # in training the text around the units is one string with them
    expected = template_ids(tokenizer, ("user", before + units_to_text([7, *units]) + behind))
    part = Ids(tuple(vocabulary.ids([7, *units])))
    assert builder.build([Turn("user", (before, part, behind))]) == expected


@given(st.lists(st.sampled_from(["<", "|", "0|>", "<|17|>", "<|eot_id|>", "<|0|>", "a", ">", "<|start_header_id|>"])))
def test_typed_text_never_becomes_a_special_token(tokenizer, vocabulary, builder, parts):
    empty = builder.build([Turn("user", ("",))])
    ids = builder.build([Turn("user", tuple(parts))])
    special = set(tokenizer.added_tokens_decoder)
    assert [i for i in ids if i in special] == [i for i in empty if i in special]
    assert vocabulary.units(ids) == []


def test_special_tokens_of_other_spelling_are_broken_too(tokenizer, vocabulary):
    other = copy.deepcopy(tokenizer)
    other.add_tokens([AddedToken("</s>", special=True)], special_tokens=True)
    ids = PromptBuilder(other, vocabulary).build([Turn("user", ("a</s>b",))])
    assert other.convert_tokens_to_ids("</s>") not in ids


def test_earlier_answers_are_put_back_by_id(tokenizer, vocabulary, builder, write):
    # "he" and "llo" were generated as two tokens, whatever the tokenizer would make of "hello"
    generated = (*write("he"), *write("llo"), *vocabulary.ids([5]), *write("\n\n"))
    ids = builder.build([Turn("user", ("a",)), Turn("assistant", (Ids(generated),)), Turn("user", ("b",))])
    expected = template_ids(tokenizer, ("user", "a"), ("assistant", "<|9|>"), ("user", "b"))
    spot = expected.index(vocabulary.first_id + 9)
    assert ids == expected[:spot] + list(generated) + expected[spot + 1 :]


def test_a_template_that_refuses_is_the_requests_fault(tokenizer, vocabulary):
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RequestError, match="roles must alternate"):
        PromptBuilder(strict, vocabulary).build([Turn("user", ("a",))])


def test_a_tokenizer_without_a_template_is_refused(tokenizer, vocabulary):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(VocabularyError, match="no chat template"):
        PromptBuilder(bare, vocabulary)


@pytest.mark.host
def test_the_prompt_is_the_one_that_the_host_trains_on(tokenizer, vocabulary, builder):
    from llamafactory.data.template import TEMPLATES

    spoken = units_to_text([3, 1, 2])
    turns = [("user", f"Repeat: {spoken}"), ("assistant", "a\n\nb"), ("user", spoken)]
    trained = [{"role": role, "content": content} for role, content in [*turns, ("assistant", "")]]
    prompt, _ = TEMPLATES["llama3"].encode_oneturn(tokenizer, trained, "be kind")
    part = Ids(tuple(vocabulary.ids([3, 1, 2])))
    built = [
        Turn("system", ("be kind",)),
        Turn("user", ("Repeat: ", part)),
        Turn("assistant", ("a\n\nb",)),
        Turn("user", (part,)),
    ]
    assert builder.build(built) == prompt
    # and with the chat template that the host writes into models that have none
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = TEMPLATES["llama3"]._get_jinja_template(tokenizer)
    assert PromptBuilder(bare, vocabulary).build(built) == prompt
