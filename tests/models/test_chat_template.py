from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tiny import CHATML, make_tokenizer, supervised_runs
from tunewright.models.chat_template import DEFAULT_TEMPLATE, IGNORED, encode, encode_prompt, load_tokenizer
from tunewright.records import Message

# The turn structures of the families that users train, as their published templates write them.
LLAMA_3 = (
    "{{ '<|im_start|>' }}{% for m in messages %}{{ '[' + m['role'] + ']\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
REWRITING = (  # drops what stands before </think> in earlier turns, as reasoning models' templates do
    "{% for m in messages %}{% set c = m['content'] %}{% if m['role'] == 'assistant' and not loop.last %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "default": DEFAULT_TEMPLATE, "llama3": LLAMA_3, "mistral": MISTRAL}

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=60).filter(
    lambda text: text.strip()
)


def tokenizer_with(template: str | None, folder: Path):
    make_tokenizer(folder, template)
    return load_tokenizer(folder)


@pytest.mark.parametrize("name", TEMPLATES)
def test_supervises_each_answer_and_its_end_and_nothing_else(name, tmp_path):
    tokenizer = tokenizer_with(TEMPLATES[name], tmp_path)

    @settings(max_examples=40, deadline=None)
    @given(first=texts, second=texts, question=texts)
    def check(first, second, question):
        messages = [
            Message(role="system", content="Be brief."),
            Message(role="user", content=question),
            Message(role="assistant", content=first),
            Message(role="user", content="And then?"),
            Message(role="assistant", content=second),
        ]
        encoded = encode(tokenizer, messages)
        assert encoded.ends_supervised
        runs = supervised_runs(encoded.labels)
        assert len(runs) == 2
        for run, content in zip(runs, (first, second), strict=True):
            assert run[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(run[:-1]).strip() == content.strip()

    check()


def test_prompt_is_the_head_of_the_conversation(tmp_path):
    tokenizer = tokenizer_with(CHATML, tmp_path)
    prompt = [Message(role="user", content="Who?")]
    whole = encode(tokenizer, [*prompt, Message(role="assistant", content="Nobody.")])
    ids = encode_prompt(tokenizer, prompt)
    assert whole.input_ids[: len(ids)] == ids
    assert all(label == IGNORED for label in whole.labels[: len(ids)])
    assert whole.labels[len(ids)] != IGNORED


def test_a_template_that_rewrites_earlier_turns_is_masked_by_content(tmp_path):
    tokenizer = tokenizer_with(REWRITING, tmp_path)
    messages = [
        Message(role="user", content="One?"),
        Message(role="assistant", content="First."),
        Message(role="user", content="Two?"),
        Message(role="assistant", content="<think>hm</think>Second."),
    ]
    encoded = encode(tokenizer, messages)
    assert tokenizer.decode([label for label in encoded.labels if label != IGNORED]) == (
        "First.<|im_end|><think>hm</think>Second.<|im_end|>"
    )


def test_no_end_token_is_seen(tmp_path):
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    tokenizer = tokenizer_with(plain, tmp_path)
    encoded = encode(tokenizer, [Message(role="user", content="a"), Message(role="assistant", content="b")])
    assert not encoded.ends_supervised


def test_missing_template_gets_the_default_with_a_warning(tmp_path, capsys):
    tokenizer = tokenizer_with(None, tmp_path)
    assert tokenizer.chat_template == DEFAULT_TEMPLATE
    assert "no chat template" in capsys.readouterr().err


def test_an_answer_that_stands_in_the_question_too_is_masked_at_its_own_position(tmp_path):
    moving = (  # puts the system text into the last user turn, so that no earlier rendering is a prefix
        "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}{% for m in messages %}"
        "{% if m['role'] == 'user' %}{{ '[Q] ' + ('Be brief. ' if m == last else '') + m['content'] + ' ' }}"
        "{% elif m['role'] == 'assistant' %}{{ '[A] ' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(moving, tmp_path)
    turns = [("user", "Is it no or yes?"), ("assistant", "no"), ("user", "Was it yes or no?"), ("assistant", "yes")]
    encoded = encode(tokenizer, [Message(role=role, content=content) for role, content in turns])
    assert tokenizer.decode([label for label in encoded.labels if label != IGNORED]).count("<|im_end|>") == 2
    assert encoded.ends_supervised
