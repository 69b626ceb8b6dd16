"""Other trainers' configurations become recipes that load, and every setting is accounted for."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from support import configs
from tunewright.cli import main
from tunewright.errors import RecipeError
from tunewright.importers.import_config import TOOLS, read_config, recipe_of, render, report_lines, tool_of
from tunewright.importers.rules import convert, leaves
from tunewright.recipe import Recipe, load_recipe, parse_recipe, sections


def converted(text: str, folder: Path, name: str = "theirs.yml") -> Recipe:
    """Convert as the command does, check that nothing is lost, and return the recipe that was written."""
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["import-config", str(folder / name), "-o", str(folder / "recipe.toml"), "--force"])
    assert end.value.code == 0
    return load_recipe(folder / "recipe.toml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a new one, where those trainers' paths start."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_axolotl_qlora(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = converted(configs.AXOLOTL_QLORA, here)
    training, model = recipe.training, recipe.model
    assert (model.base, model.quantization, model.compute) == ("mistralai/Mistral-7B-v0.1", "nf4", "auto")
    assert model.added_tokens == ("<severity>", "</severity>")
    assert (training.method, training.rank, training.alpha, training.dropout) == ("rslora", 32, 16.0, 0.05)
    assert training.targets == ("all-linear",)
    assert (training.optimizer, training.schedule, training.learning_rate) == ("paged-adamw-8bit", "cosine", 2e-4)
    assert (training.batch_size, training.epochs, training.max_tokens) == (8, 3, 4096)
    assert (training.held_out_share, training.max_grad_norm, training.tracker) == (0.1, 0.3, "wandb")
    assert (recipe.seed, recipe.preference.wanted) == (7, False)
    assert recipe.synthesis.data == ("data/tickets.jsonl", "data/more.jsonl", "data/again.json")
    written = (here / "recipe.toml").read_text()
    stderr = capsys.readouterr().err
    for line in (
        'datasets[2].path = "tatsu-lab/alpaca": not a local .jsonl or .json file',
        "max_steps = 400: training is measured in epochs",
        "num_epochs = 2.5: whole epochs only: 3",
        "micro_batch_size = 2: it counts packed rows",
        "frobnicate = 3: unknown setting",
        "neftune_noise_alpha = 5: no noise",
        "wandb_api_key = (not repeated): secrets come from the environment",
        "Empty settings: lora_model_dir, wandb_entity",
    ):
        assert line in stderr
        assert line in written
    assert "this-is-no-secret" not in written + stderr


def test_axolotl_dpo_trains_on_pairs_alone(here: Path) -> None:
    recipe = converted(configs.AXOLOTL_DPO, here)
    assert recipe.preference.data == ("pairs/judged.jsonl",)
    assert (recipe.training.epochs, recipe.preference.epochs, recipe.preference.learning_rate) == (0, 1, 5e-6)
    assert (recipe.preference.beta, recipe.preference.loss) == (0.2, "sigmoid")
    assert (recipe.model.quantization, recipe.model.compute) == ("int8", "fp16")
    assert recipe.training.targets == ("q_proj", "k_proj", "v_proj")
    assert 'field_chosen = "better": the expected name is chosen' in (here / "recipe.toml").read_text()


def test_llama_factory_sft_reads_its_register_of_data(here: Path) -> None:
    (here / "lf").mkdir()
    (here / "lf" / "dataset_info.json").write_text(json.dumps({"tickets": {"file_name": "tickets.json"}}))
    recipe = converted(configs.LLAMA_FACTORY_SFT.replace("{data}", "lf"), here)
    assert recipe.synthesis.data == ("lf/tickets.json",)
    assert (recipe.model.quantization, recipe.model.compute) == ("nf4", "bf16")
    assert (recipe.training.method, recipe.training.rank, recipe.training.alpha) == ("dora", 64, 128.0)
    assert (recipe.training.targets, recipe.training.batch_size) == (("q_proj", "v_proj"), 8)
    assert (recipe.training.warmup_share, recipe.training.checkpoint_steps) == (0.1, 500)
    written = (here / "recipe.toml").read_text()
    assert "alpaca_en_demo: not a local .jsonl or .json file" in written
    assert "this-is-no-secret" not in written


def test_llama_factory_dpo_as_json_takes_that_trainers_defaults(here: Path) -> None:
    recipe = converted(configs.LLAMA_FACTORY_DPO, here, "train.json")
    assert recipe.preference.data == ("pairs.jsonl",)  # a name of the hub: where the pairs are to be saved
    assert (recipe.training.method, recipe.model.quantization) == ("full", "none")
    assert (recipe.preference.learning_rate, recipe.preference.epochs, recipe.training.epochs) == (5e-6, 2, 0)
    assert (recipe.training.batch_size, recipe.training.max_tokens, recipe.seed) == (2, 2048, 42)
    assert (recipe.training.schedule, recipe.training.warmup_share) == ("linear", 0.0)
    written = (here / "recipe.toml").read_text()
    assert 'pref_loss = "simpo": no such loss' in written
    assert "quantization_bit = 4: all weights are trained" in written
    assert 'optim = "adafactor": no such optimizer' in written
    assert "# LLaMA-Factory's default" in written


def test_unsloth(here: Path) -> None:
    recipe = converted(configs.UNSLOTH, here)
    assert (recipe.model.base, recipe.model.quantization) == ("unsloth/Qwen2.5-0.5B", "nf4-double")
    assert (recipe.training.method, recipe.training.rank, recipe.training.batch_size) == ("rslora", 64, 8)
    assert (recipe.seed, recipe.training.tracker, recipe.synthesis.data) == (3407, "wandb", ("data/tickets.jsonl",))
    assert "this-is-no-secret" not in (here / "recipe.toml").read_text()


def test_local_paths_start_at_the_recipes_folder(here: Path) -> None:
    (here / "theirs.yml").write_text("base_model: ./student\nadapter: lora\ndatasets: [{path: chats.jsonl}]\n")
    with pytest.raises(SystemExit):
        main(["import-config", "theirs.yml", "-o", "deeper/still/recipe.toml"])
    recipe = load_recipe("deeper/still/recipe.toml")
    assert os.path.realpath(recipe.resolve(recipe.model.base)) == str(here / "student")
    assert os.path.realpath(recipe.resolve(recipe.synthesis.data[0])) == str(here / "chats.jsonl")


def test_the_recipe_goes_to_stdout_alone_and_an_existing_file_is_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "theirs.yml").write_text("base_model: embedded\nadapter: lora\n")
    with pytest.raises(SystemExit) as end:
        main(["import-config", "theirs.yml"])
    assert end.value.code == 0
    content = tomllib.loads(capsys.readouterr().out)
    assert parse_recipe(content, here).training.method == "lora"
    (here / "recipe.toml").write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["import-config", "theirs.yml", "-o", "recipe.toml"])
    assert (end.value.code, (here / "recipe.toml").read_text()) == (1, "mine")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base_model: x\n  lora_r: 3\n", "line 2"),
        ("base_model: [x\nlora_r: 3\n", "line 2"),
        ("- base_model\n", "it holds a list"),
        ("", "it holds nothing"),
        ("!!python/object/apply:os.getcwd []\n", "line 1"),
        ("learning_rate: 3\n", "supported: Axolotl (by base_model)"),
        ("model_name_or_path: x\ndataset_name: y\n", "not of a supported trainer"),
        ("base_model: x\na: &a [*a]\n", "nested too deeply"),
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: &c [*b, *b]\nbase_model: x\n" + "".join(
            f"d{n}: &d{n} [{', '.join([f'*d{n - 1}' if n else '*c'] * 9)}]\n" for n in range(8)), "settings"),
        ("base_model: \x00\n", "not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_with_its_position(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.yml").write_text(text)
    with pytest.raises(RecipeError) as refused:
        given = read_config(tmp_path / "theirs.yml")
        convert(tool_of(given, tmp_path / "theirs.yml"), given)
    assert words in str(refused.value)


def accounted(text_of_settings: dict[str, Any], folder: Path) -> None:
    """Assert that every setting is converted, listed or reported as empty, in the recipe as well."""
    tool = tool_of(text_of_settings, folder)
    conversion = convert(tool, text_of_settings)
    listed = {item.key for item in conversion.listed}
    for key, _ in leaves(text_of_settings):
        assert key in conversion.taken or key in listed or key in conversion.empty, key
    recipe = recipe_of(conversion, folder)
    text = render(conversion, recipe, "theirs.yml")
    assert parse_recipe(tomllib.loads(text), folder) == recipe
    for key, ours in conversion.taken.items():
        for setting in ours:
            line = next(
                line for line in text.splitlines() if line.startswith(setting.rpartition(".")[2]) and key in line
            )
            assert "#" in line
    assert all(
        f"  {item.key} = " in "\n".join(report_lines(conversion))
        for item in conversion.listed
        if item.key.isidentifier()
    )


@pytest.mark.parametrize("text", configs.ALL.values(), ids=configs.ALL)
def test_every_setting_of_the_examples_is_accounted_for(text: str, here: Path) -> None:
    accounted(yaml.safe_load(text), here)


_SCALARS = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-5, 5000),
    some.floats(),
    some.text(max_size=12),
    some.sampled_from(["auto", "2e-4", "adamw_torch", "lora", "qlora", "full", "dpo", "a.jsonl", "q_proj,v_proj"]),
)
_VALUES = (
    _SCALARS | some.lists(_SCALARS, max_size=3) | some.dictionaries(some.text("ab", min_size=1), _SCALARS, max_size=2)
)


def _keys(tool: Any) -> list[str]:
    grouped = [key for group in tool.groups for key in group.theirs]
    return sorted({key for key in [*tool.rules, *grouped, *tool.families] if "[" not in key and "." not in key})


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_whatever_is_written_the_recipe_loads_and_nothing_is_lost(tool: Any, data: Any, tmp_path: Path) -> None:
    keys = some.sampled_from(_keys(tool)) | some.from_regex(r"[a-z_]{1,12}", fullmatch=True)
    drawn = data.draw(some.dictionaries(keys, _VALUES, max_size=8))
    if tool.name == "Axolotl":
        data_set = some.fixed_dictionaries(
            {"path": _SCALARS}, optional={"type": _VALUES, "data_files": _VALUES, "x": _SCALARS}
        )
        drawn |= {"base_model": "owner/name", "datasets": data.draw(some.lists(data_set, max_size=3))}
    elif tool.name == "LLaMA-Factory":
        drawn |= {"model_name_or_path": "owner/name", "template": "qwen"}
    else:
        names = [*tool.rules, *(key for group in tool.groups for key in group.theirs)]
        nested: dict[str, dict[str, Any]] = {"lora": {"lora_r": 8}}
        for key in data.draw(some.lists(some.sampled_from([key for key in names if "." in key]), max_size=8)):
            section, _, inner = key.partition(".")
            nested.setdefault(section, {})[inner] = data.draw(_VALUES)
        drawn |= {"model": "owner/name", **nested}
    accounted(drawn, tmp_path)


def test_the_tables_name_settings_that_exist() -> None:
    known = {f"{name}.{key}" for name, kind in sections() for key in kind.model_fields} | set(Recipe.model_fields)
    for tool in TOOLS:
        assert {rule.ours for rule in tool.rules.values() if rule.ours} <= known
        assert {ours for group in tool.groups for ours in group.ours} <= known
        assert all(rule.ours or rule.note for rule in tool.rules.values())


@pytest.mark.parametrize(
    ("given", "ours", "value", "listed"),
    [
        ({"wandb_project": "x", "use_tensorboard": False}, "training.tracker", "wandb", "use_tensorboard"),
        ({"wandb_project": "x", "use_tensorboard": True}, "training.tracker", "wandb", "use_tensorboard"),
        ({"bf16": True, "fp16": True}, "model.compute", "bf16", "fp16"),
        ({"bf16": True, "bfloat16": True}, "model.compute", "bf16", ""),
    ],
)
def test_of_two_settings_that_disagree_the_first_stays_and_the_other_is_listed(
    given: dict[str, Any], ours: str, value: str, listed: str, here: Path
) -> None:
    whole = {"base_model": "owner/name", "adapter": "lora", **given}
    accounted(whole, here)
    conversion = convert(tool_of(whole, here), whole)
    assert conversion.settings[ours] == value
    assert [item.key for item in conversion.listed if item.key in given] == ([listed] if listed else [])


def test_both_lists_of_tokens_are_added(here: Path) -> None:
    whole = {"model_name_or_path": "o/n", "template": "x", "add_tokens": "<a>,<b>", "add_special_tokens": "<b>,<c>"}
    accounted(whole, here)
    conversion = convert(tool_of(whole, here), whole)
    assert conversion.settings["model.added_tokens"] == ("<a>", "<b>", "<c>")
    assert {"add_tokens", "add_special_tokens"} <= set(conversion.taken)


def test_the_home_of_nobody_is_a_path_like_any_other(here: Path) -> None:
    conversion = convert(tool_of({"base_model": "~nobody-here/m"}, here), {"base_model": "~nobody-here/m"})
    recipe = recipe_of(conversion, here)
    assert recipe.resolve(recipe.model.base).name == "m"
    assert recipe.comparing(["~nobody-here/run"]).evaluation.compare == ("~nobody-here/run",)


@pytest.mark.parametrize(
    "odd",
    [
        {"base_model": "o/n", "adapter": "lora", "rl": [None]},
        {"model_name_or_path": "o/n", "template": "x", "pref_loss": [None]},
    ],
)
def test_a_list_instead_of_a_name_is_listed(odd: dict[str, Any], here: Path) -> None:
    accounted(odd, here)
