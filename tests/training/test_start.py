"""training.start: a fresh adapter takes over a saved one's weights, or the reason is named."""

import pytest

from support.bench_of_training import tiny_adapted, wake
from tunewright.errors import ModelError, RecipeError
from tunewright.models.loading import save_adapter, start_from
from tunewright.recipe import parse_recipe
from tunewright.stages import start_digest
from tunewright.training.checkpoint import trainable


def saved(model, folder):
    folder.mkdir()
    save_adapter(model, folder, "base")
    return folder


def test_the_weights_are_those_that_were_saved(tiny_model, tmp_path):
    before, fresh = wake(tiny_adapted(tiny_model)), tiny_adapted(tiny_model)
    start_from(fresh, saved(before, tmp_path / "adapter"))
    for name, value in trainable(before).items():
        assert trainable(fresh)[name].equal(value), name


@pytest.mark.parametrize("changes", [{"rank": 8}, {"targets": ("q_proj",)}])
def test_another_shape_is_refused(tiny_model, tmp_path, changes):
    folder = saved(wake(tiny_adapted(tiny_model)), tmp_path / "adapter")
    with pytest.raises(ModelError) as error:
        start_from(tiny_adapted(tiny_model, **changes), folder)
    assert "training.rank and training.targets" in error.value.hint


def test_a_folder_without_an_adapter_is_named(tmp_path):
    recipe = parse_recipe({"documents": {"paths": ["x"]}, "training": {"start": "nowhere"}}, tmp_path)
    with pytest.raises(RecipeError, match="no adapter at"):
        start_digest(recipe)
    with pytest.raises(RecipeError):
        parse_recipe({"training": {"start": "a", "method": "full"}, "model": {"quantization": "none"}}, tmp_path)
