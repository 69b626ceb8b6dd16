import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.errors import RecipeError
from tunewright.recipe import Recipe, dump_recipe, load_recipe, override, parse_recipe, sections


def test_an_unknown_key_names_the_nearest_known_one(tmp_path):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"training": {"epoch": 2}, "trainig": {}, "documents": {"pathes": []}}, tmp_path)
    assert "did you mean training.epochs?" in caught.value.cause
    assert "did you mean training?" in caught.value.cause
    assert "did you mean documents.paths?" in caught.value.cause


def test_all_wrong_values_are_told_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"seed": -1, "training": {"rank": 0, "learning_rate": "fast"}}, tmp_path)
    assert caught.value.headline.startswith("recipe has 3 wrong settings")
    assert all(key in caught.value.cause for key in ("seed", "training.rank", "training.learning_rate"))


def test_folder_is_no_setting(tmp_path):
    with pytest.raises(RecipeError, match="folder"):
        parse_recipe({"folder": "/tmp"}, tmp_path)


def test_an_annotated_recipe_reads_back_the_same():
    recipe = Recipe(system_prompt='say "no"\\\n— ü', seed=3)
    text = dump_recipe(recipe, {"training.rank": "because"})
    assert parse_recipe(tomllib.loads(text), Path()) == recipe
    assert "# because" in text


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_survives_the_recipe(text):
    recipe = Recipe(system_prompt=text)
    assert tomllib.loads(dump_recipe(recipe))["system_prompt"] == text


def test_every_setting_has_help_and_there_are_few():
    settings = [(name, key, field) for name, kind in sections() for key, field in kind.model_fields.items()]
    assert all(field.description for _, _, field in settings)
    assert len(settings) + 3 <= 102  # docs/adr/0006, 0008, 0009, 0010, 0016, 0017


def test_overrides_are_toml_or_plain_text():
    content = override(
        {"training": {"epochs": 1}}, ["training.epochs=5", "model.base=a/b", "seed=7", "teacher.url=http://x/v1"]
    )
    assert content == {
        "training": {"epochs": 5},
        "model": {"base": "a/b"},
        "seed": 7,
        "teacher": {"url": "http://x/v1"},
    }
    with pytest.raises(RecipeError, match="is not KEY=VALUE"):
        override({}, ["training"])
    with pytest.raises(RecipeError, match="is not a section"):
        override({"seed": 1}, ["seed.x=2"])
    with pytest.raises(RecipeError, match="--set refusal has bytes that are no text"):
        override({}, ["refusal=a\udcff"])
    for text in ("[" * 100_000, "9" * 5000):
        assert override({}, [f"refusal={text}"]) == {"refusal": text}


NESTED = f"x = {'[' * 100_000}{']' * 100_000}\n"


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "there is no recipe"),
        ("seed = ", "is not valid TOML"),
        (NESTED, "is not valid TOML\n.*nested too deep"),
        (f"seed = {'9' * 5000}\n", "is not valid TOML\n.*4300 digits"),
    ],
)
def test_unreadable_recipes(tmp_path, content, words):
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(path)


def test_absolute_paths(tmp_path):
    (tmp_path / "model").mkdir()
    content = {"documents": {"paths": ["docs"]}, "exam": {"file": "e.csv"}, "model": {"base": "model"}}
    recipe = parse_recipe(content, tmp_path).with_absolute_paths()
    assert recipe.documents.paths == (str(tmp_path / "docs"),)
    assert recipe.exam.file == str(tmp_path / "e.csv")
    assert recipe.model.base == str(tmp_path / "model")
    assert parse_recipe({}, tmp_path).with_absolute_paths().model.base == "embedded"


@pytest.mark.parametrize(
    "setting", ["teacher.timeout_s=inf", "documents.timeout_s=nan", "seed=99999999999999999999", "evaluation.arms=[]"]
)
def test_values_that_would_fail_late_fail_early(tmp_path, setting):
    with pytest.raises(RecipeError):
        parse_recipe(override({}, [setting]), tmp_path)


def test_an_assistant_without_retention_items_is_refused_and_a_task_is_not(tmp_path):
    content = {"exam": {"retention_items": 0}, "evaluation": {"use": "assistant"}}
    with pytest.raises(RecipeError, match="1 wrong setting") as caught:
        parse_recipe(content, tmp_path)
    assert "raise exam.retention_items" in caught.value.cause
    parse_recipe({**content, "evaluation": {"use": "task"}}, tmp_path)
    parse_recipe({**content, "exam": {"retention_items": 1}}, tmp_path)


def test_an_arm_twice_and_a_text_for_a_list_are_told_in_plain_words(tmp_path):
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"evaluation": {"arms": ["base", "base"]}, "documents": {"paths": "docs"}, "split": 3}, tmp_path)
    assert "an arm is named twice" in caught.value.cause
    assert "should be a list" in caught.value.cause
    assert "should be a section" in caught.value.cause


def test_a_default_is_what_it_reads_back_as():
    text = dump_recipe(Recipe())
    assert dump_recipe(parse_recipe(tomllib.loads(text), Path())) == text
