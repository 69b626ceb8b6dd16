"""Bases as people find them: each folder is taken as it is, or refused in a sentence before anything is paid for."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from support.base_folders import ACCEPTED, REFUSED, edited, make_four_bit
from tunewright.commands.plan import show_plan
from tunewright.errors import ModelError, RecipeError
from tunewright.models.base_contents import require_base
from tunewright.models.base_folder import original_of
from tunewright.models.loading import for_inference, load_base
from tunewright.models.source import locate
from tunewright.models.student import with_stored_quantization
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings


def recipe_of(folder, quantization="none", **more):
    return Recipe(model=ModelSettings(base=str(folder), quantization=quantization), **more)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_cannot_be_trained_is_refused_by_plan_with_its_cause_and_a_hint(folder, tmp_path, name):
    change, words = REFUSED[name]
    change(folder)
    with pytest.raises(ModelError) as caught:
        show_plan(recipe_of(folder), tmp_path / "run")
    assert caught.value.hint and caught.value.cause
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_folder_that_looks_unusual_is_taken(folder, name):
    ACCEPTED[name](folder)
    require_base(recipe_of(folder))


@pytest.mark.parametrize(
    "name, original",
    [
        ("Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct"),
        ("Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "Llama-3.1-8B-Instruct"),
        ("Mistral-Small-24B-Instruct-2501-AWQ", "Mistral-Small-24B-Instruct-2501"),
        ("Llama-3.3-70B-Instruct-quantized.w8a8", "Llama-3.3-70B-Instruct"),
        ("gemma-3-12b-it-4bit", "gemma-3-12b-it"),
        ("gemma-3-12b-it", ""),
    ],
)
def test_the_original_is_known_by_the_name(tmp_path, name, original):
    assert original_of(tmp_path, {}, f"someone/{name}") == original


def pickled(folder, content=None):
    weights = content if content is not None else load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def test_pickled_weights_are_converted_once_to_the_same_numbers(folder, capfd):
    weights = load_file(folder / "model.safetensors")
    pickled(folder, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})  # tied: it shares memory
    require_base(recipe_of(folder), fetch=False)
    converted = locate(str(folder))
    assert converted != folder
    assert {file.name for file in converted.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert capfd.readouterr().err.count("converting") == 1
    assert locate(str(folder)) == converted
    assert "converting" not in capfd.readouterr().err
    for name, value in load_base(converted, "none", "cpu", torch.float32).state_dict().items():
        assert torch.equal(value, weights[name if name != "lm_head.weight" else "model.embed_tokens.weight"])


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))  # noqa: SIM115


def test_a_pickle_that_runs_code_is_refused_and_not_run(folder, tmp_path):
    pickled(folder, {"weight": Attack(str(tmp_path / "attacked"))})
    with pytest.raises(ModelError, match="more than tensors"):
        locate(str(folder))
    assert not (tmp_path / "attacked").exists()
    assert not list((tmp_path / "cache" / "converted").glob("model-*"))


def test_a_pickle_with_more_than_tensors_is_named(folder):
    pickled(folder, {"weight": torch.ones(2), "step": 3})
    with pytest.raises(ModelError, match="step is a int, not a tensor"):
        locate(str(folder))


@pytest.fixture(scope="module")
def four_bit(tmp_path_factory):
    return make_four_bit(tmp_path_factory.mktemp("bnb"))


@pytest.mark.parametrize("asked", ["none", "nf4", "int8"])
def test_a_base_in_nf4_is_trained_as_it_is_and_the_recipe_says_so(four_bit, asked, capfd):
    recipe = with_stored_quantization(recipe_of(four_bit[1], asked))
    assert recipe.model.quantization == "nf4-double"
    assert "already quantized" in capfd.readouterr().err
    require_base(recipe)


def test_a_base_in_nf4_computes_in_the_type_of_the_training(four_bit):
    original, folder = four_bit
    ids = torch.arange(3, 40)[None]
    stored, fresh = (for_inference(load_base(path, "nf4-double", "cpu", torch.float32)) for path in (folder, original))
    assert {value.dtype for value in stored.parameters()} == {torch.float32}
    with torch.inference_mode():
        one, two = stored(ids).logits, fresh(ids).logits
    assert one.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one.flatten(), two.flatten(), 0) > 0.99  # its other weights are bf16


@pytest.mark.parametrize(
    "model, training",
    [({}, {"method": "full"}), ({"sharded": True}, {})],
)
def test_what_needs_an_unquantized_base_is_refused_on_one_in_nf4(four_bit, model, training):
    recipe = Recipe(
        model=ModelSettings(base=str(four_bit[1]), quantization="none", **model),
        training=TrainingSettings(**training),
    )
    with pytest.raises(RecipeError, match="needs an unquantized base"):
        with_stored_quantization(recipe)


def test_damage_after_a_check_is_seen_by_the_next(folder):
    require_base(recipe_of(folder))
    edited(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ModelError, match="cannot be trained"):
        require_base(recipe_of(folder))
