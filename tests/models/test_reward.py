"""Reward models on tiny random classifiers: scores as transformers' own pipeline and a hand computation have them."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from support.tiny import make_model, make_reward_model
from tunewright.curation.student_sampling import Reward, reward_figures, rewards_of, sample_rewards
from tunewright.errors import ModelError
from tunewright.models import reward
from tunewright.models.reward import load_reward, score_exchanges
from tunewright.models.source import locate
from tunewright.recipe import Recipe
from tunewright.records import Message, Sample
from tunewright.settings import CurationSettings

EXCHANGES = [
    ("who followed the study ?", "the treated group ."),
    ("why ?", "it was the study of patients in three hospitals and of 426 patients ."),
    ("who was treated in the study of 426 patients in three hospitals ?", "it ."),
    ("why ?", "it was ."),
]


@pytest.fixture(scope="module", params=["bert", "deberta"])
def folder(request, tmp_path_factory):
    return make_reward_model(tmp_path_factory.mktemp("reward") / request.param, request.param)


def test_scores_are_those_of_the_pipeline_and_of_single_exchanges(folder, monkeypatch):
    from transformers import pipeline

    model, tokenizer = load_reward(folder, "cpu")
    monkeypatch.setitem(reward._BATCH_TOKENS, "cpu", 40)  # several batches
    scored = score_exchanges(model, tokenizer, EXCHANGES)
    classify = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
    for (prompt, answer), value in zip(EXCHANGES, scored.rewards, strict=True):
        assert value == pytest.approx(classify({"text": prompt, "text_pair": answer})["score"], abs=1e-4)
        ids = [2, *tokenizer.convert_tokens_to_ids(prompt.split()), 3]
        kinds = [0] * len(ids) + [1] * (len(answer.split()) + 1)
        ids += [*tokenizer.convert_tokens_to_ids(answer.split()), 3]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([kinds])).logits
        assert value == pytest.approx(logits.item(), abs=1e-4)
    assert scored.num_cut == 0
    assert len({round(value, 3) for value in scored.rewards}) == len(EXCHANGES)


def test_too_long_an_exchange_loses_the_beginning_of_its_prompt_and_is_counted(tmp_path):
    model, tokenizer = load_reward(make_reward_model(tmp_path / "short", positions=16), "cpu")
    question, answer = "who followed the study ?", "it was the group ."
    long = "in three hospitals " * 20 + question
    scored = score_exchanges(model, tokenizer, [(long, answer), (question, answer)])
    assert (scored.num_cut, scored.limit) == (1, 16)
    room = 16 - 3 - len(answer.split())
    (cut,) = score_exchanges(model, tokenizer, [(" ".join(long.split()[-room:]), answer)]).rewards
    assert scored.rewards[0] == pytest.approx(cut, abs=1e-5)
    assert scored.rewards[0] != pytest.approx(scored.rewards[1], abs=1e-3)


@pytest.mark.parametrize("lengths", [[5, 1, 9, 3], [40], [4] * 7, []])
def test_batches_hold_every_exchange_once_within_their_tokens(lengths):
    planned = reward._batches(lengths, 12)
    assert sorted(number for batch in planned for number in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= 12 for batch in planned)


def test_what_is_no_reward_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a reward model") as caught:
        load_reward(make_model(tmp_path / "chat"), "cpu")  # its head would be random
    assert "LlamaForCausalLM" in caught.value.cause
    with pytest.raises(ModelError, match="not a reward model") as caught:
        load_reward(make_reward_model(tmp_path / "many", num_labels=3), "cpu")
    assert "3 outputs" in caught.value.cause


def test_pickled_weights_and_a_missing_head_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = make_reward_model(tmp_path / "reward")
    weights = load_file(folder / "model.safetensors")
    headless = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(headless, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not a reward model") as caught:
        load_reward(folder, "cpu")
    assert "classifier" in caught.value.cause
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load the reward model"):
        load_reward(folder, "cpu")


def test_samples_are_ranked_by_their_rewards(folder):
    samples = [
        Sample(
            id=str(number),
            task="own",
            messages=(Message(role="user", content=prompt), Message(role="assistant", content=answer)),
        )
        for number, (prompt, answer) in enumerate(EXCHANGES)
    ]
    recipe = Recipe(curation=CurationSettings(reward=str(folder)))
    rewards = sample_rewards(samples, recipe)
    expected = rewards_of(EXCHANGES, recipe)
    assert rewards == [Reward(sample=s.id, reward=r) for s, r in zip(samples, expected, strict=True)]
    figures = reward_figures(rewards)
    assert figures["reward_min"] == round(min(expected), 4) < figures["reward_max"] == round(max(expected), 4)
    assert figures["reward_mean"] == round(sum(expected) / 4, 4)


def test_a_reward_model_that_ships_pickled_scores_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    scores = [score_exchanges(*load_reward(locate(str(path)), "cpu"), EXCHANGES).rewards for path in (folder, pickled)]
    assert scores[0] == scores[1]
