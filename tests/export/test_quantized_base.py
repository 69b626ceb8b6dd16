"""A base whose files are already in NF4: what is exported is what was trained on, its packed weights expanded."""

import pytest
import torch

from support.base_folders import make_four_bit
from support.families import adapted
from tunewright.errors import UserError
from tunewright.export.merge import open_merge
from tunewright.export.stage import _require_original
from tunewright.models.loading import for_inference, load_adapter, load_base, save_adapter
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_four_bit(tmp_path_factory.mktemp("bnb"))[1]


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


def test_there_is_no_original_base_to_merge_into(recipe):
    _require_original(recipe, "trained")
    with pytest.raises(UserError, match="no unquantized weights"):
        _require_original(recipe, "original")
