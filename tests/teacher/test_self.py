"""``teacher.url = "self"``: the recipe's base, as a local teacher without a key."""

import pytest

from tunewright.errors import RecipeError
from tunewright.models.source import identity
from tunewright.recipe import dump_recipe, parse_recipe
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.stages import teacher_name
from tunewright.teacher import open_teacher
from tunewright.teacher.keys import recipe_keys
from tunewright.teacher.protocol import Request


def recipe(tiny_model, tmp_path, **sections):
    content = {"model": {"base": str(tiny_model), "quantization": "none"}, "teacher": {"url": "self"}}
    return parse_recipe(content | sections, tmp_path)


def test_the_base_answers_and_no_key_goes_anywhere(tiny_model, tmp_path):
    own = recipe(tiny_model, tmp_path)
    assert recipe_keys(own) == []
    assert teacher_name(own) == f"local|{identity(str(tiny_model))}|none"
    request = Request((Message(role="user", content="Which group had the lower risk?"),), 4, 0.0, 0)
    journal = RunFolder.create(tmp_path / "run").journal("teacher.jsonl")
    with open_teacher(journal, own.writer, "synth") as teacher:
        assert teacher.ask_all([request], "asking")[0] is not None
    assert journal.entries[0]["num_tokens"] <= 4


def test_the_recipe_keeps_the_word_and_the_quantization_is_the_bases(tiny_model, tmp_path):
    own = recipe(tiny_model, tmp_path, model={"base": str(tiny_model), "quantization": "nf4"})
    assert 'url = "self"' in dump_recipe(own)
    assert (own.writer.url, own.writer.quantization) == ("local", "nf4")


@pytest.mark.parametrize(
    ("sections", "cause"),
    [
        ({"teacher": {"url": "self", "model": "x/y"}}, "takes model.base"),
        ({"judge": {"url": "self", "model": "x/y"}}, "judge its own answers"),
    ],
)
def test_what_makes_no_sense_with_it_is_refused(tiny_model, tmp_path, sections, cause):
    with pytest.raises(RecipeError) as error:
        recipe(tiny_model, tmp_path, **sections)
    assert cause in str(error.value.cause)
