"""Files for other machines: parsed as their readers parse them, and the Slurm script run by a real shell."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewright.cli import main
from tunewright.errors import DocumentError, ModelError, RecipeError
from tunewright.launchers import launch
from tunewright.models.hardware import Shape
from tunewright.models.memory_plan import SPARE, choose, predict_memory
from tunewright.models.source import locate
from tunewright.recipe import Recipe, load_recipe, parse_recipe

_7B = {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
_7B |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}
_70B = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
_70B |= {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256}


def _base(folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _recipe(folder: Path, config: dict[str, Any], **sections: dict[str, Any]) -> Recipe:
    model = {"base": _base(folder / "base", config), **sections.pop("model", {})}
    return parse_recipe({"model": model, **sections}, folder)


@pytest.mark.parametrize(
    ("config", "sections", "gpu", "count"),
    [
        (_7B, {}, "T4", 1),
        (_7B, {"model": {"compute": "bf16"}}, "L4", 1),
        (_7B, {"model": {"fp8": True}}, "H100", 1),
        (_7B, {"model": {"quantization": "none"}}, "L4", 1),
        (_70B, {}, "A100-80GB", 1),
        (_70B, {"model": {"quantization": "none", "sharded": True}}, "H200", 2),
    ],
)
def test_the_smallest_machine_that_the_plan_fits(
    config: dict[str, Any], sections: dict[str, Any], gpu: str, count: int, tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path, config, **{name: dict(values) for name, values in sections.items()})
    machine = launch.machine_of(recipe, "")
    assert (machine.gpu, machine.count) == (gpu, count)
    if count == 1:  # by the planner itself: it fits there, and on nothing smaller
        shape = Shape.of(config)
        for name, size in launch.GPUS.items():
            free = size * launch.USABLE_BYTES_PER_GB
            taken = predict_memory(recipe, shape, choose(recipe, shape, free, True, gpu=True), True).total
            if name == gpu:
                assert taken <= free * (1 - SPARE)
                break
            barred = recipe.model.fp8 or (recipe.model.compute == "bf16" and name == "T4")
            assert barred or taken > free * (1 - SPARE)


def test_a_local_teacher_counts(tmp_path: Path) -> None:
    teacher = {"url": "local", "model": _base(tmp_path / "teacher", _70B), "quantization": "nf4"}
    machine = launch.machine_of(_recipe(tmp_path, _7B, teacher=teacher), "")
    assert machine.gpu == "A100-80GB"
    assert "a local teacher" in machine.why


def test_a_local_judge_counts_with_all_its_bits(tmp_path: Path) -> None:
    judge = {"url": "local", "model": _base(tmp_path / "judge", _70B)}
    with pytest.raises(RecipeError, match="no machine of T4"):
        launch.machine_of(_recipe(tmp_path, _7B, judge=judge), "")


def test_a_base_too_large_for_all_is_refused_with_what_to_change(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, _70B, model={"quantization": "none"})
    with pytest.raises(RecipeError, match="no machine of T4"):
        launch.machine_of(recipe, "")
    assert launch.machine_of(recipe, "B300:4") == launch.Machine("B300", 4, "as named with --gpu", named=True)
    with pytest.raises(RecipeError, match="NAME:COUNT"):
        launch.machine_of(recipe, "B300:0")


def test_a_base_that_is_only_on_the_hub_asks_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="--gpu A100-80GB"):
        launch.machine_of(parse_recipe({"model": {"base": "nobody/at-home"}}, tmp_path), "")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A recipe with inputs in a folder with an awkward name."""
    folder = tmp_path / "it's: a # folder"
    (folder / "papers").mkdir(parents=True)
    (folder / "exam.jsonl").write_text("")
    (folder / "recipe.toml").write_text(
        'documents.paths = ["papers"]\nexam.file = "exam.jsonl"\ntraining.tracker = "wandb"\n'
        '[teacher]\nurl = "http://localhost:8000/v1"\nmodel = "m"\napi_key_env = "TEACHER_API_KEY"\n'
        '[judge]\nurl = "http://judges.example/v1"\nmodel = "j"\napi_key_env = "JUDGE_API_KEY"\n'
    )
    return folder / "recipe.toml"


def _launched(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    with pytest.raises(SystemExit) as end:
        main(["launch", *map(str, words)])
    output = capsys.readouterr()
    assert end.value.code == 0, output.err
    return output.out, output.err


def test_a_skypilot_task(job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "hush-hush")
    text, stderr = _launched(capsys, job, "--print", "--gpu", "A100:2", "--set", "seed=3")
    assert "nothing was started" in stderr
    assert "teacher.url is 'http://localhost:8000/v1'" in stderr
    assert "hush-hush" not in text + stderr
    task = yaml.safe_load(text)
    assert task["resources"] == {
        "accelerators": "A100:2",
        "use_spot": True,
        "job_recovery": {"strategy": "EAGER_NEXT_REGION"},
    }
    assert task["secrets"] == {"TEACHER_API_KEY": None, "JUDGE_API_KEY": None, "WANDB_API_KEY": None}
    mounts = task["file_mounts"]
    bucket = mounts.pop("~/tunewright/run")
    assert bucket["mode"] == "MOUNT_CACHED"
    assert mounts.pop("~/tunewright/recipe.toml") == str(job)
    assert set(mounts.values()) == {str(job.parent / "papers"), str(job.parent / "exam.jsonl")}
    enter, command = task["run"].splitlines()
    words = shlex.split(command)
    assert enter == "cd ~/tunewright"
    assert words[:9] == [
        "python",
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "tunewright",
        "run",
        "recipe.toml",
    ]
    assert words[9:11] == ["--dir", "run"]
    assignments = [after for word, after in zip(words, words[1:], strict=False) if word == "--set"]
    settings = {
        key: tomllib.loads(f"v = {value}")["v"]
        for key, _, value in (assignment.partition("=") for assignment in assignments)
    }
    remote = {f"~/tunewright/{path}" for path in (*settings["documents.paths"], settings["exam.file"])}
    assert remote == set(mounts)
    assert settings["seed"] == 3
    again, _ = _launched(capsys, job, "--print", "--gpu", "A100:2", "--set", "seed=3")
    assert again == text  # the same bucket: a second launch resumes from it


def test_a_missing_input_is_an_error_before_a_machine_is_rented(job: Path) -> None:
    from tunewright.launchers.launch import launch

    (job.parent / "exam.jsonl").unlink()
    for scheduler in ("skypilot", "slurm"):
        with pytest.raises(DocumentError, match="exam.file names it"):
            launch(job, job.parent / "run", assignments=(), scheduler=scheduler, gpu="T4", output=None)


def test_launch_starts_nothing_by_itself(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--print", "-o", "task.yaml"]):
        with pytest.raises(SystemExit) as end:
            main(["launch", str(job), *words])
        assert end.value.code == 2
        assert "starts nothing by itself" in capsys.readouterr().err


_CHILD = """\
#!/bin/bash
printf '%s\\n' "$@" > words
trap 'echo stopped > stopped; exit 130' INT
touch started
for _ in $(seq 600); do sleep 0.1; done
"""


def _slurm(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the script, with a stand-in for Python and one for scontrol in a folder of their own."""
    here = tmp_path / "there"
    here.mkdir()
    for name, text in (("py thon", _CHILD), ("scontrol", '#!/bin/bash\necho "$@" > requeued\n')):
        (here / name).write_text(text)
        (here / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(here / "py thon"))
    _launched(capsys, job, "--for", "slurm", "--gpu", "a100:1", "-o", here / "job.sh", "--dir", here / "run")
    return here / "job.sh"


@pytest.mark.parametrize(("sent", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_slurm_script_stops_the_run_as_ctrl_c_does_and_is_queued_again(
    sent: signal.Signals,
    requeued: bool,
    job: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = _slurm(job, tmp_path, capsys, monkeypatch)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    for line in ("--gres=gpu:a100:1", "--requeue", "--signal=B:USR1@180", "--job-name=tunewright-recipe"):
        assert f"#SBATCH {line}\n" in text
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    secrets = {"TEACHER_API_KEY": "x", "WANDB_API_KEY": "y", "JUDGE_API_KEY": "z"}
    without = subprocess.run(
        ["bash", script], env=environment, cwd=script.parent, capture_output=True, text=True, check=False
    )
    assert without.returncode != 0
    assert "TEACHER_API_KEY: export it before sbatch" in without.stderr
    with subprocess.Popen(["bash", script], env=environment | secrets, cwd=script.parent) as process:
        while not (script.parent / "started").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(sent)
        assert process.wait(timeout=60) != 0
    assert (script.parent / "stopped").exists()
    words = (script.parent / "words").read_text().splitlines()
    assert words == ["-m", "tunewright", "run", str(job), "--dir", str(script.parent / "run")]
    requests = script.parent / "requeued"
    assert (requests.read_text() if requests.exists() else "") == ("requeue 17\n" if requeued else "")


def test_what_is_launched_is_the_recipe_that_was_planned(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = _launched(capsys, job, "--print", "--gpu", "T4", "--set", "training.rank=4")
    words = shlex.split(yaml.safe_load(text)["run"].splitlines()[1])
    assignments = [after for word, after in zip(words, words[1:], strict=False) if word == "--set"]
    there, here = load_recipe(job, assignments), load_recipe(job, ["training.rank=4"])
    moved = {"documents", "exam"}
    assert there.model_dump(exclude=moved) == here.model_dump(exclude=moved)


def test_an_existing_file_is_kept_unless_forced_and_the_recipe_always(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, there = job.read_text(), job.parent / "task.yaml"
    there.write_text("mine")
    for output, force in ((there, []), (job, []), (job.parent / "papers" / ".." / job.name, ["--force"])):
        with pytest.raises(SystemExit) as end:
            main(["launch", str(job), "--gpu", "T4", "-o", str(output), *force])
        assert end.value.code == 1
    assert "--force" in capsys.readouterr().err
    assert (job.read_text(), there.read_text()) == (kept, "mine")
    _launched(capsys, job, "--gpu", "T4", "-o", there, "--force")
    assert "tunewright" in there.read_text()


def test_the_command_to_type_can_be_typed(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    _, stderr = _launched(capsys, job, "--gpu", "T4", "-o", tmp_path / "my task.yaml")
    words = shlex.split(stderr.split("start it with: ")[1].splitlines()[0])
    options = [word for name in ("TEACHER", "JUDGE") for word in ("--secret", f"{name}_API_KEY")]
    assert words == [*["sky", "jobs", "launch"], str(tmp_path / "my task.yaml"), *options, "--secret", "WANDB_API_KEY"]
    text, stderr = _launched(capsys, job, "--gpu", "T4", "--print", "--for", "notebook")
    assert "--secret" not in stderr
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(text)["cells"]}
    assert 'SECRETS = ["HF_TOKEN", "TEACHER_API_KEY", "JUDGE_API_KEY", "WANDB_API_KEY"]' in cells["parameters"]


def test_a_servers_model_is_no_file_and_what_is_compared_travels_too(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.parent / "other").mkdir()
    served = job.read_text().replace('model = "m"', 'model = "/models/of the server"')
    job.write_text(f'evaluation.compare = ["other", "owner/name"]\n{served}')
    text, _ = _launched(capsys, job, "--print", "--gpu", "T4")
    task = yaml.safe_load(text)
    words = shlex.split(task["run"].splitlines()[1])
    compared = next(word for word in words if word.startswith("evaluation.compare="))
    there, name = json.loads(compared.partition("=")[2])
    assert (task["file_mounts"][f"~/tunewright/{there}"], name) == (str(job.parent / "other"), "owner/name")
    text, _ = _launched(capsys, job, "--print", "--gpu", "T4", "--for", "notebook")
    assert json.dumps('evaluation.compare=["other", "owner/name"]') in "".join(json.loads(text)["cells"][1]["source"])


def test_an_unreachable_base_gives_the_same_error_in_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = parse_recipe({"model": {"base": "nobody/at-home"}}, tmp_path)
    errors = []
    for ask in (lambda: launch.machine_of(recipe, ""), lambda: locate("nobody/at-home")):
        with pytest.raises(ModelError) as error:
            ask()
        errors.append((error.value.headline, error.value.cause))
    assert errors[0] == errors[1]
