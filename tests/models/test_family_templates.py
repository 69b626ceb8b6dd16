"""Every family's chat template: what is supervised, and that prompts and trained conversations agree."""

from types import SimpleNamespace

import pytest

from support.families import SYSTEM, WORDS, turns
from support.tiny import supervised_runs
from tunewright.models.chat_template import IGNORED, encode, encode_prompt, load_tokenizer, render


@pytest.fixture(scope="module", params=WORDS)
def words(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / request.param
    folder.mkdir()
    WORDS[request.param].write(folder)
    return SimpleNamespace(name=request.param, tokenizer=load_tokenizer(folder), end=WORDS[request.param].end)


CHATS = {
    "one": ("Who had it?", "The treated group."),
    "several": ("Which group?", "It had.", "And then?", "Nobody.\n\nIn three hospitals.", "Was it?", "No."),
    # Answers that also stand in the template's own words or in the question.
    "echoes": ("Say user, a, or think.", "a", "user", "user", "Think?", "think"),
}


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("chat", CHATS)
def test_each_answer_and_its_end_are_supervised_and_nothing_else(words, chat, system):
    messages = turns(*CHATS[chat], system=system)
    encoded = encode(words.tokenizer, messages)
    assert encoded.ends_supervised
    runs = supervised_runs(encoded.labels)
    end = words.tokenizer.convert_tokens_to_ids(words.end)
    answers = [words.tokenizer.decode(run[:-1]).strip() for run in runs]
    assert answers == [message.content for message in messages if message.role == "assistant"]
    assert [run[-1] for run in runs] == [end] * len(runs)
    last = encode(words.tokenizer, messages, last_turn_only=True)
    assert [label for label in last.labels if label != IGNORED] == runs[-1]


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("chat", CHATS)
def test_the_prompt_is_the_head_of_the_conversation(words, chat, system):
    messages = turns(*CHATS[chat], system=system)
    prompt = encode_prompt(words.tokenizer, messages[:-1])
    encoded = encode(words.tokenizer, messages)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert all(
        label == IGNORED for label in encode(words.tokenizer, messages, last_turn_only=True).labels[: len(prompt)]
    )
    assert encoded.labels[len(prompt)] != IGNORED
    if system:
        assert SYSTEM.content in words.tokenizer.decode(encoded.input_ids)


def test_templates_that_refuse_a_system_turn_get_it_in_the_first_question(words):
    text = render(words.tokenizer, turns("Who?", system=True), add_generation_prompt=True)
    assert text.count(SYSTEM.content) == 1
    assert text.index(SYSTEM.content) < text.index("Who?")
    assert "26 Jul 2024" in text or "Today" not in text
