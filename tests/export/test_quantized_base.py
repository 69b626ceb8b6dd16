"""A base whose files are already in NF4: what is exported is what was trained on, its packed weights expanded."""

import pytest
import torch

from support.base_folders import make_four_bit
from support.bench_of_training import tiny_examples
from support.families import adapted
from tunewright.errors import UserError
from tunewright.export.merge import open_merge
from tunewright.export.stage import _require_original
from tunewright.models.base_contents import require_base
from tunewright.models.loading import for_inference, load_adapter, load_base, save_adapter
from tunewright.models.student import student_tokenizer
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFolder
from tunewright.settings import ModelSettings
from tunewright.training.packing import collate
from tunewright.training.stage import start_session

_FORMS = {
    "usual": {},
    "bytes stored as bf16": {"bnb_4bit_quant_storage": torch.bfloat16},  # as for FSDP
    "layers left out": {"llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]},  # as Unsloth's dynamic ones
}


@pytest.fixture(scope="module", params=_FORMS)
def base(request, tmp_path_factory):
    return make_four_bit(tmp_path_factory.mktemp("bnb"), **_FORMS[request.param])[1]


@pytest.fixture(scope="module")
def recipe(base):
    return Recipe(model=ModelSettings(base=str(base), quantization="nf4-double", compute="fp32"))


def test_the_merged_weights_are_those_of_the_loaded_base_with_its_adapter(base, recipe, tmp_path):
    model = adapted(load_base(base, "nf4-double", "cpu", torch.float32))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    save_adapter(model, tmp_path, "a/name")
    loaded = load_adapter(for_inference(load_base(base, "nf4-double", "cpu", torch.float32)), tmp_path)
    expected = loaded.merge_and_unload().state_dict()
    merge = open_merge(tmp_path, recipe, "trained")
    assert {name for name in merge.files if "quant_state" in name or "absmax" in name} == set()
    for name in merge.files:
        assert merge.shape(name) == list(expected[name].shape)
        assert torch.allclose(merge.tensor(name), expected[name], atol=1e-6), name


def test_it_is_taken_by_plan_and_trains(base, recipe, tmp_path):
    run = RunFolder(tmp_path)
    require_base(recipe)
    run.path.mkdir(exist_ok=True)
    session = start_session(run, recipe, student_tokenizer(recipe))
    (-session.path.token_logps(collate(tiny_examples(base, 2), "cpu")).sum()).backward()
    gradients = [value.grad for name, value in session.path.model.named_parameters() if "lora_B" in name]
    assert all(float(gradient.norm()) > 0 for gradient in gradients)


def test_there_is_no_original_base_to_merge_into(recipe):
    _require_original(recipe, "trained")
    with pytest.raises(UserError, match="no unquantized weights"):
        _require_original(recipe, "original")
