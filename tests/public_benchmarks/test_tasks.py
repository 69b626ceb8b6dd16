"""Base and tuned play tasks on one loaded model: lm-eval's from files, the bundled environment, each once."""

import json
from pathlib import Path

import pytest

from tunewright.commands.benchmark import benchmark
from tunewright.errors import UserError
from tunewright.models import model_pool
from tunewright.public_benchmarks.harness import yaml_content
from tunewright.public_benchmarks.tasks import Extent, _rows, compare_values, find_task
from tunewright.recipe import Recipe, dump_recipe
from tunewright.reporting.benchmarks import BenchmarkResults
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import ModelSettings


def write_adapter(model_folder: Path, folder: Path, seed: int) -> None:
    """Write a LoRA adapter with random weights on both sides, so that it changes every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    config = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)


@pytest.fixture
def run(tmp_path, tiny_model):
    run = RunFolder.create(tmp_path / "run")
    run.write("recipe.toml", dump_recipe(Recipe(model=ModelSettings(base=str(tiny_model), quantization="none"))))
    write_adapter(tiny_model, run.file("adapter"), seed=1)
    return run


@pytest.fixture
def choices(tmp_path):
    path = tmp_path / "mine.jsonl"
    words = [
        "the",
        "treated",
        "group",
        "had",
        "lower",
        "risk",
        "than",
        "those",
        "who",
        "followed",
        "study",
        "in",
        "hospitals",
    ]
    options = [[words[(n * k + k) % len(words)] for k in range(1, 5)] for n in range(24)]
    rows = [{"question": f"What is {n}?", "options": four, "right": n % 4} for n, four in enumerate(options)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(results: BenchmarkResults) -> dict[tuple[str, str], tuple[float, float]]:
    return {(row.task, row.metric): (row.base, row.tuned) for row in results.results}


@pytest.mark.slow
def test_a_file_is_played_on_both_and_a_new_adapter_is_never_given_old_scores(run, choices, tiny_model, monkeypatch):
    first = rows_of(benchmark(run, [str(choices)], Extent()))
    assert set(first) == {("mine", "acc"), ("mine", "acc_norm")}
    assert any(base != tuned for base, tuned in first.values())

    with monkeypatch.context() as patched:  # a second time nothing is loaded
        patched.setattr(model_pool, "student_base", None)
        assert rows_of(benchmark(run, [str(choices)], Extent())) == first

    write_adapter(tiny_model, run.file("adapter"), seed=2)
    second = rows_of(benchmark(run, [str(choices)], Extent()))
    assert {key: base for key, (base, _) in second.items()} == {key: base for key, (base, _) in first.items()}
    assert second != first
    arms = [entry["arm"] for entry in run.journal(RunFile.BENCHMARKS_JOURNAL).entries]
    assert arms == ["base", "tuned", "tuned"]


@pytest.mark.slow
def test_open_questions_a_yaml_task_and_the_environment_are_in_one_table(run, tmp_path, capsys):
    (tmp_path / "open.jsonl").write_text(json.dumps({"question": "Who?", "answer": "Ada"}) + "\n")
    (tmp_path / "data.jsonl").write_text(json.dumps({"q": "two and two", "a": "four"}) + "\n")
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'data.jsonl'}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "doc_to_choice: ['three', 'four']\nmetric_list:\n  - metric: acc\n"
    )
    benchmark(run, [str(tmp_path / "open.jsonl"), str(tmp_path / "sums.yaml")], Extent())
    results = benchmark(run, ["agent-database"], Extent())
    assert set(rows_of(results)) == {
        ("open", "exact_match"),
        ("sums", "acc"),
        ("agent-database", "success"),
        ("agent-database", "valid_actions"),
    }
    assert BenchmarkResults.model_validate(run.read_json(RunFile.BENCHMARKS)) == results


def test_a_yaml_tasks_data_is_part_of_its_content(tmp_path):
    data, task = tmp_path / "data.jsonl", tmp_path / "sums.yaml"
    data.write_text('{"q": "two and two", "a": "four"}\n')
    task.write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        "doc_to_text: !function utils.text\n"
    )
    before = find_task(str(task)).content
    assert find_task(str(task)).content == before
    data.write_text('{"q": "two and three", "a": "five"}\n')
    changed = find_task(str(task)).content
    assert changed != before
    (tmp_path / "utils.py").write_text("def text(doc): return doc['q']\n")
    assert find_task(str(task)).content not in (before, changed)


@pytest.mark.parametrize("content", ["a: " + "[" * 50_000, "a: 2020-99-99", "a: [", "? [b]\n: c"])
def test_a_yaml_task_that_cannot_be_read_names_no_data(tmp_path, content):
    (tmp_path / "odd.yaml").write_text(content)
    assert yaml_content(tmp_path / "odd.yaml")


@pytest.mark.slow
def test_without_shots_a_task_keeps_its_own_and_none_is_none(run, choices, capsys):
    benchmark(run, [str(choices)], Extent(limit=4))
    benchmark(run, [str(choices)], Extent(limit=4, shots=0))
    assert len(run.journal(RunFile.BENCHMARKS_JOURNAL).entries) == 4  # two extents, each on base and tuned
    printed = capsys.readouterr().err
    assert "at most 4 items of each task, 0 worked examples before each" in printed


def test_items_are_paired_and_a_groups_tasks_are_its_clusters():
    base = {"acc": {f"{task}/{n}": 0.0 for task in "abc" for n in range(4)}}
    tuned = {"acc": {item: float(item.startswith("a/")) for item in base["acc"]}}
    (row,) = compare_values("group", base, tuned)
    assert row.difference.num_clusters == 3 and row.tuned == pytest.approx(1 / 3)
    alone = {"acc": {str(n): 1.0 for n in range(5)}}
    assert compare_values("one", alone, alone)[0].difference.num_clusters == 5


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("", "holds no question"),
        ("{", "not JSON.*: line 1"),
        ('{"question": "q", "options": ["a"], "right": 1}\n', "2 to 26 are needed.*: line 1"),
        (
            '{"question": "q", "answer": "a"}\n{"question": "q", "options": ["a"], "right": 0}\n',
            "another form.*: line 2",
        ),
        ("[1]\n", "has another form: item 1"),
        ('{"question": "q", "answer": 1}\n' * 3, "3 of 3 lines(?s:.)*has another form: lines 1 to 3"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, cause):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=cause):
        find_task(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("letters.jsonl", '{"question": "q", "choices": ["a", "b", "c"], "answer": "B"}\n'),
        (
            "indexes.json",
            '[{"question": "q", "options": ["a", "b", "c"], "answer": 1}, ' * 1
            + '{"question": "q", "options": ["0", "1", "c"], "answer": 0}]',
        ),
        (
            "arc.jsonl",
            '{"question": "q", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "2"}\n',
        ),
        ("columns.csv", "Question;A;B;C;Answer\nq;a;b;c;B\n"),
    ],
)
def test_options_answered_by_a_letter_are_played_as_choices(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert _rows(path)[0] == {"question": "q", "options": ["a", "b", "c"], "right": 1}


def test_a_task_that_cannot_be_played_is_an_error_with_the_reason(run, tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        find_task(str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="none.yaml is not a task"):
        find_task(str(tmp_path / "none.yaml"))
    (tmp_path / "broken.yaml").write_text("task: [")
    with pytest.raises(UserError):
        benchmark(run, [str(tmp_path / "broken.yaml")], Extent())
