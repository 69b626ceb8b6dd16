"""The engine transformers: every answer is chat's, and the clients' sampling options apply."""

from __future__ import annotations

import shutil

import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from support.serving_process import refused, served
from tunewright.chat.models import ChatModels
from tunewright.models.chat_template import end_ids
from tunewright.models.generation import stream
from tunewright.recipe import load_recipe
from tunewright.serving.requests import ChatRequest
from tunewright.serving.transformers_engine import cut_at_stops, token_chooser

pytestmark = pytest.mark.slow

NUM_PROMPTS, NUM_TOKENS = 200, 16


@pytest.fixture(scope="module")
def client(run):
    with served(run.path, "--engine", "transformers") as (address, _):
        yield openai.OpenAI(base_url=address, api_key="unused", max_retries=0)


def ask(client, text, **options):
    turns = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="tuned", messages=turns, **{"max_tokens": NUM_TOKENS, **options})


@pytest.mark.slow
def test_every_served_answer_on_200_prompts_is_chats(run, client):
    models = ChatModels(load_recipe(run.file("recipe.toml")), run.file("adapter"))
    model = models.load("tuned")
    words = ["which", "group", "had", "it", "lower", "risk", "than", "those", "who", "followed"]
    answers = set()
    for number in range(NUM_PROMPTS):
        prompt = f"{words[number % 10]} {words[number // 10 % 10]} {words[number // 100]} {number} ?"
        ids = models.prompt_ids("tuned", prompt, ())
        answer = "".join(stream(model, models.tokenizer, ids, NUM_TOKENS, end_ids(models.tokenizer, model)))
        assert ask(client, prompt).choices[0].message.content == answer
        answers.add(answer)
    assert len(answers) > NUM_PROMPTS // 2


@pytest.mark.slow
def test_with_the_adapter_withheld_it_does_not_start(run, tmp_path):
    copy = tmp_path / "other adapter"
    shutil.copytree(run.path, copy)
    weights = copy / "adapter/adapter_model.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(weights).items()}, weights)
    code, message = refused(copy, "--engine", "transformers")
    assert code == 3 and "the adapter is not applied" in message


def test_a_client_may_sample_and_stop(client):
    drawn = {
        ask(client, "Which group had it ?", temperature=2, seed=seed).choices[0].message.content for seed in (1, 1, 2)
    }
    assert len(drawn) == 2
    whole = ask(client, "Which group had it ?")
    assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", NUM_TOKENS)
    word = whole.choices[0].message.content.split()[3]
    stopped = ask(client, "Which group had it ?", stop=word).choices[0]
    assert stopped.message.content == whole.choices[0].message.content.partition(word)[0]
    assert stopped.finish_reason == "stop"
    long = "it " * 5000
    with pytest.raises(openai.BadRequestError, match="room for"):
        ask(client, long)


def request(**options):
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": ""}], **options})


def test_penalties_are_openais():
    logits, ids = torch.tensor([[2.0, 1.9, 0.0]]), [0, 0, 1]
    assert token_chooser(request())(logits, ids) == 0
    assert token_chooser(request(frequency_penalty=0.2))(logits, ids) == 1  # 2.0 - 0.4 against 1.9 - 0.2
    assert token_chooser(request(presence_penalty=2))(logits, ids) == 0  # both were written: the order stays
    assert token_chooser(request(presence_penalty=2))(logits, [0]) == 1
    assert token_chooser(request(temperature=1.0, top_p=0.01))(logits, ids) == 0


@pytest.mark.slow
@given(st.lists(st.text("abc", max_size=4)), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_a_text_ends_before_the_first_stop_however_it_is_cut_into_pieces(pieces, stops):
    written, text = "", "".join(pieces)
    walk = cut_at_stops(iter(pieces), stops)
    while True:
        try:
            written += next(walk).text
        except StopIteration as end:
            stopped = end.value
            break
    indices = [text.index(stop) for stop in stops if stop in text]
    assert stopped == bool(indices)
    if not indices:
        assert written == text
    else:  # of several, the one whose end comes first ends the text
        ends = {text.index(stop) + len(stop): text.index(stop) for stop in stops if stop in text}
        assert written in {text[:index] for index in indices}
        assert len(written) <= ends[min(ends)]
