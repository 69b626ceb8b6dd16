"""The fast path in 16 bit on a GPU: its gradients are as near to those of 32 bit as the plain path's, or nearer."""

import copy

import pytest
import torch

from support.bench_of_training import loop_settings, tiny_examples, wake
from support.families import MORE, TINY, base_of, make_family
from tunewright.models.loading import attach_adapter, load_base
from tunewright.recipe import Recipe
from tunewright.settings import ModelSettings, TrainingSettings
from tunewright.training.checkpoint import trainable
from tunewright.training.compute_path import choose_path
from tunewright.training.kernels import norms
from tunewright.training.kernels.attention import Scores, attend, segments_of
from tunewright.training.kernels.decoder import FastPath
from tunewright.training.loop import accumulate
from tunewright.training.objectives import NEXT_TOKEN
from tunewright.training.optimizers import OPTIMIZERS
from tunewright.training.plain_path import PlainPath
from tunewright.training.step_plan import Capacity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda:0"


def gradients(path, examples, compute):
    path.model.zero_grad()
    settings = loop_settings(device=DEVICE, compute=compute)
    loss = accumulate(path, NEXT_TOKEN, examples, settings, Capacity(100_000))["loss"]
    return float(loss), torch.cat([parameter.grad.double().flatten() for parameter in trainable(path.model).values()])


def fast(model, kept=10**6, cached=True, eight=False):
    path = FastPath(model)
    if eight:
        path.use_eight_bits()
    path.configure(kept, cached)
    return path


def trio(folder, kind, quantization="nf4-double"):
    """The same adapted base in 16 bit, and computed in 32."""
    base = load_base(folder, quantization, DEVICE, kind)
    model = wake(attach_adapter(base, TrainingSettings(rank=16, alpha=32), 0)).train()
    return model, copy.deepcopy(model).float()


def apart(ours, reference):
    return float((ours - reference).norm() / reference.norm())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kept", "cached"), [(0, False), (2, False), (4, True), (10**6, True)])
def test_gradients_are_no_further_from_the_truth_than_the_plain_path(tiny_model, kind, kept, cached):
    model, exact = trio(tiny_model, kind)
    examples = tiny_examples(tiny_model, 8)
    truth_loss, truth = gradients(fast(exact), examples, None)
    plain_loss, plain = gradients(PlainPath(model), examples, kind)
    ours_loss, ours = gradients(fast(model, kept, cached), examples, kind)
    assert apart(ours, truth) <= 1.2 * apart(plain, truth) + 1e-3
    assert abs(ours_loss - truth_loss) <= 2 * abs(plain_loss - truth_loss) + 2e-3 * truth_loss


@pytest.mark.parametrize("name", TINY | MORE)
def test_every_family(name, tmp_path):
    folder = make_family(name, tmp_path / name)
    base = base_of(folder).to(DEVICE)
    model = wake(attach_adapter(base, TrainingSettings(rank=4, alpha=8), 0)).train()
    examples = tiny_examples(folder, 6)
    reference_loss, reference = gradients(PlainPath(model), examples, None)
    path = choose_path(
        Recipe(model=ModelSettings(base=str(folder)), training=TrainingSettings(max_tokens=512)), model, DEVICE
    )
    loss, ours = gradients(path, examples, None)
    assert loss == pytest.approx(reference_loss, rel=1e-5)
    assert apart(ours, reference) < 1e-4


@pytest.mark.parametrize("name", ["gemma3", "olmo2", "qwen3"])
def test_the_plain_paths_fused_norms_are_transformers_own(name, tmp_path, monkeypatch):
    folder = make_family(name, tmp_path / name)
    model = wake(attach_adapter(base_of(folder).to(DEVICE), TrainingSettings(rank=4, alpha=8), 0)).train()
    examples = tiny_examples(folder, 6)
    with monkeypatch.context() as patch:
        patch.setattr(norms, "fuse_norms", lambda model: 0)
        reference_loss, reference = gradients(PlainPath(model), examples, None)
    loss, ours = gradients(PlainPath(model), examples, None)
    assert loss == pytest.approx(reference_loss, rel=1e-5)
    assert apart(ours, reference) < 1e-4


@pytest.mark.parametrize("name", [name for name in MORE if "num_experts_per_tok" in MORE[name].config])
def test_experts_in_grouped_products(name, tmp_path):
    """Some tokens go to other experts in 16 bit than in 32, by the plain path too."""
    folder = make_family(name, tmp_path / name)
    model, exact = trio(folder, torch.bfloat16)
    examples = tiny_examples(folder, 12)
    truth_loss, truth = gradients(fast(exact), examples, None)
    plain_loss, plain = gradients(PlainPath(model), examples, torch.bfloat16)
    for kept in (0, 10**6):
        ours_loss, ours = gradients(fast(model, kept, False), examples, torch.bfloat16)
        assert apart(ours, truth) <= 1.5 * apart(plain, truth) + 1e-2
        assert abs(ours_loss - truth_loss) <= 2 * abs(plain_loss - truth_loss) + 5e-3 * truth_loss


def test_eight_bit_gradients_point_the_same_way(tiny_model):
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs 8-bit floating point")
    model, _ = trio(tiny_model, torch.bfloat16)
    examples = tiny_examples(tiny_model, 8)
    loss, exact = gradients(fast(model), examples, torch.bfloat16)
    coarse_loss, coarse = gradients(fast(model, eight=True), examples, torch.bfloat16)
    assert float(torch.dot(coarse, exact) / coarse.norm() / exact.norm()) > 0.98
    assert coarse_loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cached", [True, False])
def test_every_optimizers_step_is_seen(tiny_model, name, cached):
    """Fused kernels and bitsandbytes change parameters without torch's knowledge."""
    model, _ = trio(tiny_model, torch.bfloat16)
    examples = tiny_examples(tiny_model, 8)
    path = fast(model, cached=cached)
    optimizer = OPTIMIZERS[name](trainable(model).values())
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    before, _ = gradients(path, examples, torch.bfloat16)
    optimizer.step()
    after, _ = gradients(path, examples, torch.bfloat16)
    renewed, _ = gradients(fast(model), examples, torch.bfloat16)
    assert abs(after - before) > 1e-2
    assert after == pytest.approx(renewed, rel=1e-4)


@pytest.mark.parametrize("scores", [Scores(), Scores(0.1, 64), Scores(0.2, 0, 5.0), Scores(0.2, 64, 5.0)])
@pytest.mark.parametrize("lengths", [(256, 256, 256), (300,), (17, 256, 100, 3), (128, 128)])
@pytest.mark.parametrize(("heads", "size"), [((4, 4), 96), ((8, 2), 256), ((8, 2), 64)])
def test_attention_stays_within_its_sequence(lengths, heads, size, scores):
    """Each way of attention against plain products, forward and backward."""
    total, (query, key) = sum(lengths), heads
    parts = [torch.randn(total, n, size, device=DEVICE, requires_grad=True) for n in (query, key, key)]
    out = attend(*(part.to(torch.bfloat16) for part in parts), segments_of(lengths, DEVICE), scores)
    expected, start = [], 0
    for length in lengths:
        q, k, v = (part[start : start + length].transpose(0, 1) for part in parts)
        k, v = (part.repeat_interleave(query // key, 0) for part in (k, v))
        values = q @ k.transpose(1, 2) * (scores.scale or size**-0.5)
        values = scores.softcap * (values / scores.softcap).tanh() if scores.softcap else values
        at = torch.arange(length, device=DEVICE)
        distance = at[:, None] - at[None]
        unseen = (distance < 0) | (distance >= (scores.window or length))
        expected.append((values.masked_fill(unseen, float("-inf")).softmax(-1) @ v).transpose(0, 1))
        start += length
    expected = torch.cat(expected)
    torch.testing.assert_close(out.float(), expected, atol=3e-2, rtol=3e-2)
    upper = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.float(), parts, upper, retain_graph=True),
        torch.autograd.grad(expected, parts, upper), strict=True,
    ):  # fmt: skip
        assert apart(ours, theirs) < 2e-2
