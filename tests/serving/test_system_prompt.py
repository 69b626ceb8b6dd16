"""The system turn of a user's own chats reaches exam, chat and server, end to end."""

from __future__ import annotations

import json

import pytest

from tunewright import pipeline
from tunewright.chat.models import ChatModels
from tunewright.recipe import load_recipe, parse_recipe
from tunewright.records import Answer
from tunewright.serving.engine import Completions
from tunewright.serving.requests import ChatRequest
from tunewright.serving.served_model import ServedModel

TURN = "You sort hats."


def rows(system: str) -> str:
    turns = [{"role": "system", "content": system}] if system else []
    kinds = ("felt", "straw", "wool", "silk", "paper", "leather")
    questions = [({"role": "user", "content": f"Where goes {kind}?"}, f"Shelf {kind[0]}.") for kind in kinds]
    return "".join(
        json.dumps({"messages": [*turns, user, {"role": "assistant", "content": answer}]}) + "\n"
        for user, answer in questions
    )


@pytest.mark.parametrize("system", [TURN, ""])
def test_exam_chat_and_server_send_the_system_turn_of_the_chats(tmp_path, tiny_model, system):
    (tmp_path / "chats.jsonl").write_text(rows(system))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": "Where goes tweed?", "answer": "Shelf t."}) + "\n")
    content = {
        "exam": {"file": "exam.jsonl", "retention_items": 0},
        "synthesis": {"data": ["chats.jsonl"]},
        "curation": {"near_duplicate": 1.0, "embedding_duplicate": 0.0},
        "model": {"base": str(tiny_model), "quantization": "none", "compute": "fp32"},
        "training": {"epochs": 1, "held_out_share": 0.0},
        "evaluation": {"arms": ["base", "tuned"], "max_new_tokens": 2},
    }
    run = pipeline.run(parse_recipe(content, tmp_path), tmp_path / "run", until="evaluate")

    recipe = load_recipe(run.file("recipe.toml"))
    models = ChatModels(recipe, run.file("adapter"))
    chatted = models.prompt_ids("tuned", "Where goes tweed?", [])
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "Where goes tweed?"}]})
    engine = Completions("none", "http://127.0.0.1:9", "", 512)
    served = ServedModel(engine, models.tokenizer, recipe.system_prompt, True).prompt_ids(request)
    text = models.tokenizer.decode(chatted)
    assert text.count("system\n") == bool(system)
    assert TURN in text or not system
    assert served == chatted
    assert {a.num_prompt_tokens for a in run.read_records("answers.jsonl", Answer)} == {len(chatted)}
