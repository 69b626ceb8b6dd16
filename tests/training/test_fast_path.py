"""The fast path gives the loss and the gradients of the plain one (transformers and peft), in fp32 on a CPU."""

import copy
import json
import shutil
import weakref
from dataclasses import replace

import pytest
import torch

from support.bench_of_training import loop_settings, tasks, tiny_adapted, tiny_examples, wake
from support.families import MORE, TINY, adapted, base_of, logits_of, make_family
from tunewright.errors import RecipeError
from tunewright.export.merge import open_merge, write_weights
from tunewright.models.chat_template import load_tokenizer
from tunewright.models.families import FAMILIES
from tunewright.models.loading import attach_adapter, load_base, save_adapter
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.checkpoint import trainable
from tunewright.training.compute_path import choose_path, plain_path_reason
from tunewright.training.kernels.build import unsupported_reason
from tunewright.training.kernels.decoder import FastPath
from tunewright.training.kernels.head import LogitForm, TargetLogps
from tunewright.training.loop import accumulate
from tunewright.training.objectives import NEXT_TOKEN, sequence_logps
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.packing import collate
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity


def gradients(path, objective, examples, budget=1000):
    path.model.zero_grad()
    loss = accumulate(path, objective, examples, loop_settings(), Capacity(budget))["loss"]
    return loss, {name: parameter.grad.clone() for name, parameter in trainable(path.model).items()}


def assert_same(result, reference, tolerance):
    (loss, ours), (expected, theirs) = result, reference
    assert float(loss) == pytest.approx(float(expected), rel=tolerance)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient.norm() > 0
        assert (ours[name] - gradient).norm() <= tolerance * gradient.norm(), name


def fast(model, kept=10**6, cached=True):
    path = FastPath(model)
    path.configure(kept, cached)
    return path


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("quantization", ["none", "nf4", "nf4-double"])
def test_loss_and_gradients_are_those_of_the_reference(tiny_model, quantization, kept, cached):
    base = load_base(tiny_model, quantization, "cpu", torch.float32)
    model = wake(attach_adapter(base, TrainingSettings(rank=4, alpha=8), 0)).train()
    examples = tiny_examples(tiny_model, 8)
    reference = gradients(PlainPath(model), NEXT_TOKEN, examples)
    path = fast(model)
    path.configure(round(kept * len(path.layers)), cached)
    assert_same(gradients(path, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("name", ["text", "distillation", "dpo"])
def test_other_objectives(tiny_model, name):
    model, task = wake(tiny_adapted(tiny_model)), tasks(tiny_model)[name]
    reference = gradients(PlainPath(model), task.objective, task.examples)
    assert_same(gradients(fast(model), task.objective, task.examples), reference, 1e-5)


@pytest.mark.parametrize("name", TINY | MORE)
def test_every_family_takes_it_or_the_reason_is_printed(name, tmp_path, capsys, monkeypatch):
    folder = make_family(name, tmp_path / name)
    model = wake(adapted(base_of(folder))).train()
    examples = tiny_examples(folder, 6)
    reference = gradients(PlainPath(model), NEXT_TOKEN, examples)
    recipe = Recipe(model=ModelSettings(base=str(folder)), training=TrainingSettings(max_tokens=512))
    path = choose_path(recipe, model, "cuda:0")
    printed = capsys.readouterr().err
    described = FAMILIES[(TINY | MORE)[name].kind].layers is not None
    assert path.is_fast == described
    assert ("have layers of their own" in printed) == (not described)
    if described:
        for level in (3, 2, 1, 0):
            path.configure(level * len(path.layers), level > 1)
            assert_same(gradients(path, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("name", MORE)
def test_more_families_pack_and_merge(name, tmp_path):
    """For the other families, test_families.py and test_round_trip.py show it."""
    folder = make_family(name, tmp_path / "base")
    model, examples = wake(adapted(base_of(folder))), tiny_examples(folder, 5)
    path = fast(model)
    with torch.no_grad():
        alone = torch.cat([sequence_logps(path, collate([example], "cpu"))[0] for example in examples])
        torch.testing.assert_close(sequence_logps(path, collate(examples, "cpu"))[0], alone, rtol=1e-5, atol=1e-5)
    save_adapter(model, tmp_path / "adapter", "a/name")
    merged = tmp_path / "merged"
    merged.mkdir()
    recipe = Recipe(model=ModelSettings(base=str(folder), quantization="none", compute="fp32"))
    write_weights(open_merge(tmp_path / "adapter", recipe, "trained"), merged, "fp32")
    shutil.copy(folder / "config.json", merged)
    ids = examples[0].sequences[0].input_ids
    torch.testing.assert_close(logits_of(base_of(merged), ids), logits_of(model, ids), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["llama2", "gemma3_text", "phi4"])
def test_settings_of_other_kinds_are_as_without_effect_as_in_transformers(name, tmp_path):
    """A config.json may state what models of its kind do not have, such as the window of another that it came from."""
    strange = {
        "logits_scaling": 3.0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "no_rope_layers": [0, 1, 0],
        **({"sliding_window": 8, "final_logit_softcapping": 4.0} if name == "llama2" else {}),
    }
    tiny = (TINY | MORE)[name]
    folder = replace(tiny, config={**tiny.config, **strange}).write(tmp_path / name)
    model, examples = wake(adapted(base_of(folder))), tiny_examples(folder, 4)
    reference = gradients(PlainPath(model), NEXT_TOKEN, examples)
    assert_same(gradients(fast(model), NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_rotation_by_length_is_that_of_each_sample(kind, tmp_path):
    """Its angles depend on the length of a sequence: not on those beside it in a row, nor on those before it."""
    tiny, factors = TINY["qwen2"], {"short_factor": [1.0] * 8, "long_factor": [3.0] * 8} if kind == "longrope" else {}
    rotation = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 44, **factors}
    config = {**tiny.config, "rope_parameters": rotation, "max_position_embeddings": 44, "initializer_range": 0.3}
    folder = replace(tiny, config=config).write(tmp_path / kind)
    model, examples = wake(adapted(base_of(folder))), tiny_examples(folder, 5)
    lengths = [example.num_tokens for example in examples]
    assert min(lengths) <= 44 < max(lengths)
    with torch.no_grad():
        alone = torch.cat(
            [sequence_logps(PlainPath(copy.deepcopy(model)), collate([example], "cpu"))[0] for example in examples]
        )
        for path in (fast(model), PlainPath(model)):
            torch.testing.assert_close(sequence_logps(path, collate(examples, "cpu"))[0], alone, rtol=1e-5, atol=1e-5)
            last = sequence_logps(path, collate(examples[:1], "cpu"))[0]
            torch.testing.assert_close(last, alone[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("down_proj",), ("up_proj", "o_proj")])
def test_layers_without_an_adapter(tiny_model, targets):
    model = wake(tiny_adapted(tiny_model, targets=targets))
    examples = tiny_examples(tiny_model, 6)
    reference = gradients(PlainPath(model), NEXT_TOKEN, examples)
    path = fast(model, 0, False)
    assert_same(gradients(path, NEXT_TOKEN, examples), reference, 1e-5)


@pytest.mark.parametrize("changes", [{"method": "dora"}, {"dropout": 0.1}, {"kernels": "off"}])
def test_what_it_cannot_do_takes_the_plain_path(tiny_model, changes, capsys):
    model = tiny_adapted(tiny_model, **changes)
    settings = TrainingSettings(**changes)
    recipe = Recipe(model=ModelSettings(base=str(tiny_model)), training=settings)
    assert not choose_path(recipe, model, "cuda:0").is_fast
    assert "plain path is taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "gelu"}, "uses gelu"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
    ],
)
def test_a_config_that_it_does_not_compute(tiny_model, tmp_path, change, reason):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    assert reason in plain_path_reason(Recipe(model=ModelSettings(base=str(folder))))


def test_a_setting_of_a_later_version_of_transformers_takes_the_plain_path(tiny_model):
    model = tiny_adapted(tiny_model)
    assert unsupported_reason(model) == ""

    class Later(type(model.config)):
        score_bias: float = 0.0

    model.config.__class__ = Later
    model.config.score_bias = 0.0
    assert unsupported_reason(model) == ""
    model.config.score_bias = 0.5
    assert "score_bias" in unsupported_reason(model)


def test_weights_in_a_form_of_their_own_are_refused(tiny_model):
    """A folder may come quantized in a way that the recipe does not say."""
    model = attach_adapter(load_base(tiny_model, "int8", "cpu", torch.float32), TrainingSettings(rank=4), 0)
    assert "format of their own" in unsupported_reason(model)


def test_gradients_of_learned_tokens_survive_fp16():
    """The loss scale comes too late for the slopes, which the head computes ahead of the backward pass."""
    torch.manual_seed(0)
    weight, targets = torch.nn.functional.normalize(torch.randn(4000, 64)) * 0.8, torch.arange(20)
    hidden = weight[targets] * 36
    slopes = {}
    for kind in (torch.float32, torch.float16):
        x = hidden.detach().to(kind).requires_grad_()
        logps = TargetLogps.apply(x, weight.to(kind), targets, LogitForm())
        (-logps.sum() * 1024).backward()
        slopes[kind] = x.grad.float()
    assert -1e-4 < float(logps.detach().mean()) < 0
    truth = slopes[torch.float32]
    assert (slopes[torch.float16] - truth).norm() < 0.02 * truth.norm()


def test_factors_are_whole_after_memory_ran_out_between_them(tiny_model, monkeypatch):
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    path = fast(model)
    expected = path.token_logps(batch)
    path.configure(0, False)
    real, calls = torch.mul, []

    def fails_once(*arguments, **rest):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(*arguments, **rest)

    monkeypatch.setattr(torch, "mul", fails_once)
    with pytest.raises(torch.OutOfMemoryError):
        path.token_logps(batch)
    torch.testing.assert_close(path.token_logps(batch), expected)


def test_it_is_gone_with_the_model(tiny_model):
    """A cycle would keep base and copies on the device until the garbage collector comes by."""
    path = fast(wake(tiny_adapted(tiny_model)))
    left = weakref.ref(path), weakref.ref(path.layers[0])
    (-path.token_logps(collate(tiny_examples(tiny_model, 2), "cpu")).sum()).backward()
    del path
    assert [reference() for reference in left] == [None, None]


@pytest.mark.parametrize(
    ("model", "training"),
    [({}, {"dropout": 0.1}), ({}, {"method": "dora"}), ({}, {"kernels": "off"}), ({"sharded": True}, {})],
)
def test_eight_bits_need_the_fast_path(model, training):
    kept = ModelSettings(fp8=True, quantization="none", **model)
    with pytest.raises(ValueError, match="fp8 is for the fast path"):
        Recipe(model=kept, training=TrainingSettings(**training))


def test_eight_bits_need_the_hardware(tiny_model):
    recipe = Recipe(model=ModelSettings(base=str(tiny_model), fp8=True))
    with pytest.raises(RecipeError, match="needs a GPU with 8-bit"):
        choose_path(recipe, tiny_adapted(tiny_model), "cpu")


def test_factors_are_read_again_after_a_step(tiny_model):
    """The cached matrices follow the optimizer, and a checkpoint read into the adapter."""
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    plain = copy.deepcopy(model)
    path = fast(model)
    before = path.token_logps(batch)
    with torch.no_grad():
        for parameter, twin in zip(trainable(model).values(), trainable(plain).values(), strict=True):
            parameter.mul_(1.5)
            twin.mul_(1.5)
    after = path.token_logps(batch)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, PlainPath(plain).token_logps(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizers_step_is_seen(tiny_model, name):
    """bitsandbytes changes parameters without torch's knowledge."""
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    path = fast(model)
    optimizer = OPTIMIZERS[name](trainable(model).values())
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    (-path.token_logps(batch).sum()).backward()
    optimizer.step()
    cached = path.token_logps(batch)
    path.configure(0, False)
    for layer in path.layers:
        for group in layer.groups:
            group._seen = None  # so that all factors are read again
    torch.testing.assert_close(cached, path.token_logps(batch))


def test_without_the_adapter_it_is_the_base(tiny_model):
    model, batch = wake(tiny_adapted(tiny_model)), collate(tiny_examples(tiny_model, 4), "cpu")
    with torch.no_grad(), model.disable_adapter():
        base = PlainPath(model).token_logps(batch)
        torch.testing.assert_close(fast(model).token_logps(batch), base, rtol=1e-5, atol=1e-5)


def test_added_tokens_are_trained_through_it(tiny_model):
    base = load_base(tiny_model, "none", "cpu", torch.float32, len(load_tokenizer(tiny_model)))
    model = wake(attach_adapter(base, TrainingSettings(rank=4), 0, new_tokens=(7, 9)))
    examples = tiny_examples(tiny_model, 6)
    reference = gradients(PlainPath(model), NEXT_TOKEN, examples)
    assert_same(gradients(fast(model), NEXT_TOKEN, examples), reference, 1e-5)
