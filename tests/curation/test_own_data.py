"""The user's own data is read as its writer meant it: loss flags, history, reasoning, tools, known columns."""

import json

import pytest

from support.tiny import make_tokenizer
from tunewright.curation.chat_formats import read_own_data, with_own_system_prompt
from tunewright.curation.stage import curate
from tunewright.errors import StageError
from tunewright.models.chat_template import IGNORED, encode, load_tokenizer
from tunewright.recipe import Recipe, parse_recipe
from tunewright.records import Message, Question, Sample
from tunewright.run_folder import RunFolder
from tunewright.settings import SynthesisSettings
from tunewright.text.reasoning import strip_reasoning
from tunewright.training.dataset import encode_samples


def read(tmp_path, *lines, keeps_reasoning=False):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    samples, rejections = read_own_data([path], keeps_reasoning)
    return [[(m.role, m.content, m.loss) for m in s.messages] for s in samples], [r.reason for r in rejections]


GOOD = {"prompt": "Which hat?", "completion": "Hat 1."}
LEFT_OUT = "own data: marked as not to train on"


@pytest.mark.parametrize(
    "flag", [{"weight": 0}, {"train": False}, {"loss": False}, {"weight": 0.0}, {"train": "false"}]
)
def test_a_turn_that_is_marked_takes_no_loss(tmp_path, flag):
    turns = [
        {"role": "user", "content": "Which hat is bad?"},
        {"role": "assistant", "content": "Wrong.", **flag},
        {"role": "user", "content": "Again?"},
        {"role": "assistant", "content": "Hat 8.", "weight": 1, "train": True},
    ]
    samples, rejected = read(tmp_path, {"messages": turns}, {"messages": turns[:2]}, GOOD, {**GOOD, **flag})
    assert [loss for *_, loss in samples[0]] == [True, False, True, True]
    assert len(samples) == 2 and rejected == [LEFT_OUT] * 2
    swapped, _ = read(tmp_path, {"messages": [turns[0], turns[3], turns[2], turns[1]]})
    assert [content for _, content, _ in swapped[0]] == ["Which hat is bad?", "Hat 8."]


def test_a_bad_answer_of_kto_data_is_left_out(tmp_path):
    samples, rejected = read(tmp_path, {**GOOD, "label": True}, {**GOOD, "label": False}, {**GOOD, "label": "0"})
    assert len(samples) == 2 and rejected == [LEFT_OUT]


def test_the_mask_leaves_a_marked_turn_out(tmp_path):
    turns = [("user", "a", True), ("assistant", "wrong one", False), ("user", "b", True), ("assistant", "right", True)]
    messages = tuple(Message(role=role, content=content, loss=loss) for role, content, loss in turns)
    make_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    labels = [label for label in encode(tokenizer, messages).labels if label != IGNORED]
    assert "right" in tokenizer.decode(labels) and "wrong" not in tokenizer.decode(labels)
    assert encode(tokenizer, messages).ends_supervised


@pytest.mark.parametrize(
    "history",
    [
        [["Which fork is first?", "Fork 1."]],
        [{"role": "user", "content": "Which fork is first?"}, {"role": "assistant", "content": "Fork 1."}],
        [{"instruction": "Which fork is first?", "output": "Fork 1."}],
    ],
)
def test_the_history_of_alpaca_comes_first(tmp_path, history):
    line = {
        "instruction": "And the second?",
        "input": "",
        "output": "Fork 3.",
        "system": "Be brief.",
        "history": history,
    }
    samples, _ = read(tmp_path, line)
    texts = [content for _, content, _ in samples[0]]
    assert texts == ["Be brief.", "Which fork is first?", "Fork 1.", "And the second?", "Fork 3."]
    assert read(tmp_path, GOOD, {**line, "history": "none"})[1] == ["own data: history is not a list of exchanges"]


def test_turns_of_one_role_in_a_row_are_joined(tmp_path):
    turns = [("user", "One."), ("user", "Two."), ("assistant", "A."), ("assistant", "B.")]
    samples, _ = read(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    assert samples == [[("user", "One.\n\nTwo.", True), ("assistant", "A.\n\nB.", True)]]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "tool", "content": "7"},
        {"role": "function", "content": "7"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": "", "function_call": {"name": "f"}},
        {"from": "observation", "value": "7"},
        {"from": "function_call", "value": "f()"},
    ],
)
def test_tool_calls_are_left_out_by_name(tmp_path, turn):
    ask = {"role": "user", "content": "How many?"}
    samples, rejected = read(tmp_path, GOOD, {"messages": [ask, turn, {"role": "assistant", "content": "7."}]})
    assert len(samples) == 1 and rejected == ["own data: tool calls"]


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "<think>\nLet me see.\n</think>\n\nThree."},
        {"content": "Let me see.\n</think>\n\nThree."},
        {"content": "Three.", "reasoning_content": "Let me see."},
        {"content": "Three.", "thinking": "Let me see."},
    ],
)
def test_reasoning_is_stripped_or_kept(tmp_path, turn):
    line = {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", **turn}]}
    assert read(tmp_path, line)[0][0][-1][1] == "Three."
    kept = read(tmp_path, line, keeps_reasoning=True)[0][0][-1][1]
    assert kept.endswith("Let me see.\n</think>\n\nThree.")


def test_only_the_reasoning_before_an_answer_is_stripped():
    for text in ("Three.", "The tag <think> opens, </think> closes it.", "<think>never closed"):
        assert strip_reasoning(text) == text
    assert strip_reasoning("<thinking>a</thinking> b <think>c</think>") == "b <think>c</think>"


def test_a_sample_whose_text_the_template_changes_is_left_out_and_counted(tmp_path):
    make_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content.split('§')[-1] + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    texts = ["b", "c§b", "b"]
    chats = [
        Sample(
            id=str(n), task="own", messages=(Message(role="user", content="a"), Message(role="assistant", content=t))
        )
        for n, t in enumerate(texts)
    ]
    examples, rejections = encode_samples(chats, tokenizer, 99)
    assert [example.sample for example in examples] == ["0", "2"]
    assert [(r.id, r.reason) for r in rejections] == [("1", "the chat template changes its text")]


TURN = {"role": "user", "content": "Which is it?"}, {"role": "assistant", "content": "This."}
TREE = [
    {"message_id": "1", "parent_id": None, "text": "Which is it?", "role": "prompter"},
    {"message_id": "2", "parent_id": "1", "text": "This.", "role": "assistant", "rank": 0},
]
LAYOUTS = {
    "dolly": {"instruction": "Which is it?", "context": "", "response": "This.", "category": "open_qa"},
    "no_robots": {"prompt": "Which is it?", "prompt_id": "a", "messages": TURN, "category": "QA"},
    "openassistant-guanaco": {"text": "### Human: Which is it?### Assistant: This."},
    "ultrachat": {"id": "0", "data": ["Which is it?", "This."]},
    "ultrachat_200k": {"prompt": "Which is it?", "prompt_id": "a", "messages": TURN},
    "UltraFeedback": {
        "source": "flan",
        "instruction": "Which is it?",
        "completions": [{"response": "That.", "overall_score": 3.0}, {"response": "This.", "overall_score": 8.5}],
    },
    "UltraFeedback, binarized": {
        "prompt": "Which is it?", "chosen": TURN, "rejected": TURN, "messages": TURN, "score_chosen": 8.0
    },
    "HelpSteer": {"prompt": "Which is it?", "response": "This.", "helpfulness": 4, "correctness": 4},
    "SQuAD": {"id": "a", "title": "t", "question": "Which is it?", "answers": {"text": ["This.", "this"]}},
    "Alpaca": {"instruction": "Which is it?", "input": "", "output": "This.", "text": "Below is an instruction."},
    "ShareGPT": {"id": "a", "conversations": [{"from": "human", "value": "Which is it?"}, {"from": "gpt", "value": "This."}]},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_known_columns_are_recognized(tmp_path, name):
    rows = [json.loads(json.dumps(LAYOUTS[name]).replace("Which is it", f"Which is it {n}")) for n in range(5)]
    samples, rejected = read(tmp_path, *rows)
    assert rejected == []
    expected = [[("user", f"Which is it {n}?", True), ("assistant", "This.", True)] for n in range(5)]
    assert samples == expected


def test_messages_of_a_tree_become_conversations(tmp_path):
    more = [
        {"message_id": "3", "parent_id": "2", "text": "And then?", "role": "prompter"},
        {"message_id": "4", "parent_id": "3", "text": "That.", "role": "assistant"},
        {"message_id": "5", "parent_id": "1", "text": "It.", "role": "assistant"},
    ]
    samples, rejected = read(tmp_path, *TREE, *more)
    assert rejected == []
    assert [[text for _, text, _ in turns] for turns in samples] == [
        ["Which is it?", "This.", "And then?", "That."],
        ["Which is it?", "It."],
    ]


def test_the_passage_of_squad_is_shown_and_a_question_without_an_answer_is_left_out(tmp_path):
    row = {"context": "It is blue.", "question": "Which color?", "answers": {"text": ["blue"], "answer_start": [6]}}
    samples, rejected = read(tmp_path, row, {**row, "answers": {"text": [], "answer_start": []}})
    assert samples[0][0][1] == "It is blue.\n\nWhich color?" and rejected == ["own data: a question without an answer"]


def hint_of(tmp_path, lines, exam=()):
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    run = RunFolder.create(tmp_path / "run")
    run.write_records("exam.jsonl", exam)
    with pytest.raises(StageError) as caught:
        curate(run, Recipe(synthesis=SynthesisSettings(data=("data.jsonl",)), folder=tmp_path))
    return caught.value.hint


def test_the_hint_follows_from_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("tunewright.curation.stage.read_token_vectors", lambda *_: None)
    mail = [
        {"prompt": f"My mail is anna{n}@example.org, where is parcel {n}?", "completion": "Late."} for n in range(3)
    ]
    assert "--set curation.privacy=mask" in hint_of(tmp_path, mail)
    asked = Question(id="e", ring="unseen", document="d", question="Who is it?", gold="Ann.", answerable=True)
    hint = hint_of(tmp_path, [{"prompt": "Who is it?", "completion": "Ann."}], [asked])
    assert "exam" in hint and "teacher" not in hint


SYSTEMS = {
    "none": ([""] * 20, ""),
    "one": (["Be brief."] * 20, "Be brief."),
    "nearly all": (["Be brief."] * 19 + [""], "Be brief."),
    "mixed": (["Be brief.", "Be long."] * 10, Recipe().system_prompt),
}


@pytest.mark.parametrize(("texts", "expected"), SYSTEMS.values(), ids=SYSTEMS)
def test_the_system_prompt_follows_the_chats(tmp_path, texts, expected):
    lines = [{**GOOD, "prompt": f"Which hat {n}?", "system": text} for n, text in enumerate(texts)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    data = {"synthesis": {"data": ["data.jsonl"]}}
    assert with_own_system_prompt(parse_recipe(data, tmp_path)).system_prompt == expected
    named = parse_recipe({**data, "system_prompt": "Mine."}, tmp_path)
    assert with_own_system_prompt(named).system_prompt == "Mine."
    both = parse_recipe({**data, "documents": {"paths": ["docs"]}}, tmp_path)
    assert with_own_system_prompt(both).system_prompt == Recipe().system_prompt


def test_another_system_prompt_than_that_of_the_samples_is_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tunewright.curation.stage.read_token_vectors", lambda *_: None)
    lines = [{**GOOD, "prompt": f"Which hat is number {n}?", "completion": f"Hat {n}."} for n in range(9)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    for prompt, warned in (("Mine.", True), ("", False)):
        run = RunFolder.create(tmp_path / f"run{warned}")
        synthesis = SynthesisSettings(data=("data.jsonl",))
        curate(run, Recipe(synthesis=synthesis, system_prompt=prompt, folder=tmp_path))
        assert ("another system turn than system_prompt" in " ".join(capsys.readouterr().err.split())) is warned
