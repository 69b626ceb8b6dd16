"""The examined model as the engine: every answer is chat's, and what clients ask of sampling is done."""

from __future__ import annotations

import shutil

import openai
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from support.serving_process import refused, served
from tunewright.chat.models import Voices
from tunewright.models.chat_template import end_ids
from tunewright.models.generation import stream
from tunewright.recipe import load_recipe
from tunewright.serving.requests import ChatRequest
from tunewright.serving.transformers import cut_at_stops, token_chooser

NUM_PROMPTS, NUM_TOKENS = 200, 16


@pytest.fixture(scope="module")
def client(run):
    with served(run.path, "--engine", "transformers") as (address, _):
        yield openai.OpenAI(base_url=address, api_key="unused", max_retries=0)


def ask(client, text, **options):
    turns = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="tuned", messages=turns, **{"max_tokens": NUM_TOKENS, **options})


def test_every_served_answer_on_200_prompts_is_chats(run, client):
    voices = Voices(run, load_recipe(run.file("recipe.toml")))
    model = voices.load("tuned")
    words = ["which", "group", "had", "it", "lower", "risk", "than", "those", "who", "followed"]
    told = set()
    for number in range(NUM_PROMPTS):
        prompt = f"{words[number % 10]} {words[number // 10 % 10]} {words[number // 100]} {number} ?"
        ids = voices.prompt_ids("tuned", prompt, ())
        answer = "".join(stream(model, voices.tokenizer, ids, NUM_TOKENS, end_ids(voices.tokenizer, model)))
        assert ask(client, prompt).choices[0].message.content == answer
        told.add(answer)
    assert len(told) > NUM_PROMPTS // 2


def test_with_the_adapter_withheld_it_does_not_start(run, tmp_path):
    copy = tmp_path / "other adapter"
    shutil.copytree(run.path, copy)
    weights = copy / "adapter/adapter_model.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(weights).items()}, weights)
    code, told = refused(copy, "--engine", "transformers")
    assert code == 3 and "the adapter is not applied" in told


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


@given(st.lists(st.text("abc", max_size=4)), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_a_text_ends_before_the_first_stop_however_it_is_cut_into_pieces(pieces, stops):
    told, text = "", "".join(pieces)
    walk = cut_at_stops(iter(pieces), stops)
    while True:
        try:
            told += next(walk).text
        except StopIteration as end:
            stopped = end.value
            break
    places = [text.index(stop) for stop in stops if stop in text]
    assert stopped == bool(places)
    if not places:
        assert told == text
    else:  # of several, the one whose end comes first ends the text
        ends = {text.index(stop) + len(stop): text.index(stop) for stop in stops if stop in text}
        assert told in {text[:place] for place in places}
        assert len(told) <= ends[min(ends)]
