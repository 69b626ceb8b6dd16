"""Thinking models: what is trained reads back as reasoning and answer, with the templates of this year's models."""

import pytest

from support.families import of_trl
from support.tiny import make_tokenizer
from tunewright.export.tokenizer import portable_template
from tunewright.models.chat_template import IGNORED, answer_text, encode, encode_prompt, encode_turns, load_tokenizer
from tunewright.records import Message, Sample
from tunewright.text.reasoning import split_reasoning, strip_reasoning, text_to_score
from tunewright.training.dataset import encode_samples

TEMPLATES = {
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "qwen3_5_think": ("<|im_start|>", "<|im_end|>"),
    "qwen3_8": ("<|im_start|>", "<|im_end|>"),
    "deepseek_r1_distill": ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    "nemotron_3_nano": ("<|im_start|>", "<|im_end|>"),
    "gptoss": ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
}
REASONED = "<think>\nThe study group\n</think>\n\n426 patients"


@pytest.fixture(scope="module", params=TEMPLATES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("thinking") / request.param
    folder.mkdir()
    special = ("<|endoftext|>", *TEMPLATES[request.param])
    make_tokenizer(folder, of_trl(request.param), special, special[0], special[-1], special[0])
    return folder


def user(text):
    return Message(role="user", content=text)


def assistant(text):
    return Message(role="assistant", content=text)


def written(tokenizer, prompt, encoded):
    """Return the text of the trained tokens as if the model had just written them behind that prompt."""
    ids = encode_prompt(tokenizer, prompt)
    assert encoded.input_ids[: len(ids)] == ids
    assert all(label == IGNORED for label in encoded.labels[: len(ids)])
    trained = [label for label in encoded.labels if label != IGNORED]
    assert len(trained) == len([label for label in encoded.labels[len(ids) :] if label != IGNORED])
    assert encoded.ends_supervised
    return answer_text(tokenizer, ids, trained[:-1])


@pytest.mark.parametrize("content", [REASONED, "<think>The study group</think>426 patients"])
def test_kept_reasoning_is_trained_behind_the_prompt_of_generation_and_reads_back(folder, content):
    tokenizer = load_tokenizer(folder, thinks=True)
    prompt = (user("Which?"),)
    text = written(tokenizer, prompt, encode(tokenizer, (*prompt, assistant(content))))
    assert split_reasoning(text) == ("The study group", "426 patients")


@pytest.mark.parametrize("thinks", [False, True])
def test_an_answer_without_reasoning_reads_back_as_an_answer(folder, thinks):
    tokenizer = load_tokenizer(folder, thinks=thinks)
    prompt = (user("Which?"),)
    text = written(tokenizer, prompt, encode(tokenizer, (*prompt, assistant("426 patients"))))
    assert text_to_score(text).strip() == "426 patients"


@pytest.mark.parametrize("thinks", [False, True])
def test_an_empty_block_is_an_answer_without_reasoning(folder, thinks):
    """Qwen3's own data has it where the model was not to reason."""
    tokenizer = load_tokenizer(folder, thinks=thinks)
    prompt = (user("Which?"),)
    text = written(tokenizer, prompt, encode(tokenizer, (*prompt, assistant("<think>\n\n</think>\n\n426 patients"))))
    assert text_to_score(text).strip() in ("426 patients", "<think>\n\n</think>\n\n426 patients")


def test_reasoning_that_does_not_end_is_not_trained(folder):
    """An answer that was cut off in its reasoning: the model would learn to write no answer."""
    whole, cut = (
        Sample(id=name, task="own", messages=(user("Which?"), assistant(text)))
        for name, text in (("whole", REASONED), ("cut", "<think>\nThe study group"))
    )
    examples, rejections = encode_samples([whole, cut], load_tokenizer(folder, thinks=True), 512)
    assert [example.sample for example in examples] == ["whole"]
    assert [(each.id, each.reason) for each in rejections] == [("cut", "its reasoning does not end")]


def test_each_turn_that_reasons_is_trained_behind_its_own_prompt(folder):
    tokenizer = load_tokenizer(folder, thinks=True)
    turns = (user("Which?"), assistant(REASONED), user("Who?"), assistant(REASONED.replace("426", "12")))
    first, second = encode_turns(tokenizer, turns)
    assert split_reasoning(written(tokenizer, turns[:1], first)) == ("The study group", "426 patients")
    assert split_reasoning(written(tokenizer, turns[:3], second)) == ("The study group", "12 patients")
    assert "study group" not in tokenizer.decode(encode_prompt(tokenizer, turns[:3]))


def test_a_conversation_without_reasoning_stays_one_sequence(folder):
    tokenizer = load_tokenizer(folder)
    assert len(encode_turns(tokenizer, (user("a"), assistant("b"), user("c"), assistant("d")))) == 1


@pytest.mark.parametrize("thinks", [False, True])
def test_the_exported_template_gives_the_prompts_of_the_training(folder, thinks):
    tokenizer = load_tokenizer(folder, thinks=thinks)
    expected = tokenizer.decode(encode_prompt(tokenizer, (user("Which?"),)))
    tokenizer.chat_template = portable_template(tokenizer)
    plain = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which?"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(tokenizer(plain, add_special_tokens=False)["input_ids"]) == expected


def test_tags_that_are_special_tokens_are_not_lost(tmp_path):
    make_tokenizer(tmp_path, special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "[THINK]", "[/THINK]"))
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer("[THINK]The study group[/THINK]426 patients<|im_end|>", add_special_tokens=False)["input_ids"]
    text = answer_text(tokenizer, [], ids)
    assert text == "[THINK]The study group[/THINK]426 patients"
    assert strip_reasoning(text) == "426 patients"
    assert text_to_score("[THINK]The study") == ""
