import json
from pathlib import Path

import pytest

from tunewright.curation.chat_formats import FORMATS, data_digest, read_own_data
from tunewright.errors import DocumentError
from tunewright.recipe import Recipe
from tunewright.settings import SynthesisSettings

SYSTEM, USER, ASSISTANT = "Be brief.", "What is the capital of France?", "Paris."
CHAT = [("system", SYSTEM), ("user", USER), ("assistant", ASSISTANT)]
TURNS = [{"role": role, "content": content} for role, content in CHAT]
SAME = {
    "messages": {"messages": TURNS},
    "conversation": {"conversation": TURNS},
    "sharegpt": {
        "conversations": [
            {"from": "system", "value": SYSTEM},
            {"from": "human", "value": USER},
            {"from": "gpt", "value": ASSISTANT},
        ]
    },
    "sharegpt with its system turn apart": {
        "system": SYSTEM,
        "conversations": [{"from": "human", "value": USER}, {"from": "gpt", "value": ASSISTANT}],
    },
    "alpaca": {"system": SYSTEM, "instruction": USER, "input": "", "output": ASSISTANT},
    "prompt messages": {"prompt": TURNS[:2], "completion": TURNS[2:]},
    "prompt messages, completion text": {"prompt": TURNS[:2], "completion": " Paris."},
    "prompt text": {"system": SYSTEM, "prompt": USER, "completion": ASSISTANT},
    "text parts": {
        "messages": [{"role": r, "content": [{"type": "text", "text": c}]} for r, c in CHAT],
    },
    "role tokens": {"text": f"<|system|>\n{SYSTEM}</s>\n<|user|>\n{USER}</s>\n<|assistant|>\n{ASSISTANT}</s>"},
    "role tokens in one line": {"text": f"<s><|system|>{SYSTEM}<|user|>{USER}</s></s><|assistant|>{ASSISTANT}"},
    "ChatML": {
        "text": "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in CHAT) + "<|endoftext|>"
    },
    "Llama 3": {
        "text": "<|begin_of_text|>"
        + "".join(f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>" for role, content in CHAT)
    },
}
MALFORMED = {
    "not JSON": '{"messages": [',
    "not a JSON object": '"hello"',
    "unknown format": '{"prompt": "a", "chosen": "b", "rejected": "c"}',
    "unknown role": '{"messages": [{"role": "judge", "content": "a"}]}',
    "tool calls": '{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}]}',
    "a turn is not text": '{"messages": [{"role": "user", "content": 7}]}',
    "turns are not a list of objects": '{"messages": "hello"}',
    "turns do not alternate": json.dumps({"messages": [TURNS[2], TURNS[1], TURNS[2]]}),
    "does not end with an assistant turn": json.dumps({"messages": TURNS[:2]}),
    "empty turn": '{"prompt": "a", "completion": "  "}',
    "no turns": '{"messages": []}',
    "text without role tokens": '{"text": "Paris is the capital of France."}',
    "text before the first role token": '{"text": "Hello <|user|> a <|assistant|> b"}',
}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_sample(tmp_path, name):
    samples, rejections = read_own_data([write(tmp_path / "a.jsonl", json.dumps(SAME[name]))])
    assert rejections == []
    assert [(m.role, m.content) for m in samples[0].messages] == CHAT
    assert samples[0].task == "own" and samples[0].evidence is None


def test_all_formats_mix_in_a_file_and_the_id_names_the_content(tmp_path):
    samples, _ = read_own_data([write(tmp_path / "a.jsonl", *map(json.dumps, SAME.values()))])
    assert len(samples) == len(SAME) and len({sample.id for sample in samples}) == 1


def test_alpaca_input_follows_the_instruction(tmp_path):
    line = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}
    samples, _ = read_own_data([write(tmp_path / "a.jsonl", json.dumps(line))])
    assert [m.content for m in samples[0].messages] == ["Translate.\n\nGuten Tag", "Good day"]


def test_a_conversation_without_a_system_turn_stays_without(tmp_path):
    line = {"messages": [*TURNS[1:], *TURNS[1:]]}
    samples, _ = read_own_data([write(tmp_path / "a.jsonl", json.dumps(line))])
    assert [m.role for m in samples[0].messages] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("reason", MALFORMED)
def test_a_malformed_line_is_rejected_with_its_position(tmp_path, reason):
    path = write(tmp_path / "a.jsonl", json.dumps(SAME["messages"]), "", MALFORMED[reason])
    samples, rejections = read_own_data([path])
    assert len(samples) == 1
    assert [(r.id, r.reason) for r in rejections] == [(f"{path}:3", f"own data: {reason}")]


def test_bytes_that_are_not_text_spoil_only_their_line(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(SAME["messages"]).encode()
    half = b'{"prompt": "\\ud800", "completion": "b"}'
    path.write_bytes(b"\xef\xbb\xbf" + good + b'\r\n{"text": "\xff"}\n' + b"[" * 100_000 + b"\n" + half + b"\n" + good)
    samples, rejections = read_own_data([path])
    assert len(samples) == 2
    assert [r.reason for r in rejections] == ["own data: not JSON"] * 2 + ["own data: a turn is not text"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_item_by_item(tmp_path, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([SAME["alpaca"], 7, SAME["messages"]], indent=indent), encoding="utf-8")
    samples, rejections = read_own_data([path])
    assert len(samples) == 2
    assert [r.id for r in rejections] == [f"{path}:item 2"]


def test_a_damaged_array_is_a_single_rejection(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([SAME["alpaca"]] * 9, indent=2)[:-5], encoding="utf-8")
    good = write(tmp_path / "b.jsonl", json.dumps(SAME["alpaca"]))
    samples, rejections = read_own_data([path, good])
    assert len(samples) == 1 and [r.id for r in rejections] == [str(path)]


def test_if_all_is_malformed_the_error_names_reasons_and_formats(tmp_path):
    path = write(tmp_path / "a.jsonl", MALFORMED["unknown format"], MALFORMED["not JSON"])
    with pytest.raises(DocumentError) as caught:
        read_own_data([path])
    assert "none of the 2 lines" in caught.value.headline
    assert "chosen, prompt, rejected" in caught.value.cause and f"{path}:1" in caught.value.cause
    assert all(name in caught.value.hint for name in FORMATS)


def test_missing_and_empty_data_are_errors(tmp_path):
    for path in (tmp_path / "none.jsonl", write(tmp_path / "empty.jsonl", "")):
        with pytest.raises(DocumentError, match=path.name if path.exists() is False else "empty"):
            read_own_data([path])
    assert read_own_data([]) == ([], [])


def test_a_folder_stands_for_its_files_in_order(tmp_path):
    for name, answer in (("b.jsonl", "two"), ("a.json", "one")):
        write(tmp_path / name, json.dumps({"prompt": "Which?", "completion": answer}))
    write(tmp_path / "notes.txt", "no data")
    samples, _ = read_own_data([tmp_path])
    assert [sample.answer for sample in samples] == ["one", "two"]


def test_the_digest_follows_the_content_not_the_name(tmp_path):
    recipe = Recipe(synthesis=SynthesisSettings(data=("a.jsonl",)), folder=tmp_path)
    moved = Recipe(synthesis=SynthesisSettings(data=("b.jsonl",)), folder=tmp_path)
    write(tmp_path / "a.jsonl", "one")
    write(tmp_path / "b.jsonl", "one")
    before = data_digest(recipe)
    assert before == data_digest(moved)
    write(tmp_path / "a.jsonl", "two")
    assert data_digest(recipe) != before
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(DocumentError):
        data_digest(recipe)
