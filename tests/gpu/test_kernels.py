"""Each Triton kernel gives what its plain counterpart gives; on a GPU, or anywhere with TRITON_INTERPRET=1."""

import os
from types import SimpleNamespace

import pytest
import torch

from tunewright.training.kernels import elementwise

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device"),
]
KINDS = [torch.float32] if INTERPRETED else [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return request.param


@pytest.fixture
def compare(kind, monkeypatch):
    """Run a function of elementwise twice, plain and as a kernel, on equal tensors; compare what it wrote."""
    kernels = pytest.importorskip("tunewright.training.kernels.triton_kernels")
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}[kind]

    def run(function, *tensors, **rest):
        copies = [[_copy(tensor) for tensor in tensors] for _ in range(2)]
        for backend, arguments in zip((None, kernels), copies, strict=True):
            with monkeypatch.context() as patched:
                patched.setattr(elementwise, "_triton", lambda tensor, backend=backend: backend)
                function(*arguments, **rest)
        for ours, reference in zip(*copies, strict=True):
            torch.testing.assert_close(_flat(ours), _flat(reference), rtol=tolerance, atol=tolerance, equal_nan=True)

    return run


def _copy(value):
    if isinstance(value, tuple):
        return tuple(_copy(part) for part in value)
    if not isinstance(value, torch.Tensor):
        return value
    whole = value._base if value._base is not None else value
    return whole.clone().as_strided(value.shape, value.stride(), value.storage_offset())


def _flat(value):
    if isinstance(value, tuple):
        return torch.cat([_flat(part) for part in value])
    return value.float().flatten() if isinstance(value, torch.Tensor) else torch.zeros(1, device=DEVICE)


def wide(rows, columns, kind, spare=8):
    """Random values in the first columns of a wider tensor."""
    return torch.randn(rows, columns + spare, device=DEVICE).to(kind)[:, :columns]


@pytest.mark.parametrize("size", [96, 896, 4096])
@pytest.mark.parametrize("adds", [False, True])
def test_rms_norm(compare, kind, size, adds):
    x, weight = wide(37, size, kind), torch.rand(size, device=DEVICE).to(kind)
    more = (wide(37, size, kind), torch.empty(37, size, device=DEVICE, dtype=kind)) if adds else ()
    compare(elementwise.rms_norm, x, weight, 1e-5, wide(37, size, kind, 16), *more)


@pytest.mark.parametrize("size", [96, 2560])
def test_add_rms_norm(compare, kind, size):
    weight = torch.rand(size, device=DEVICE) + 1  # in 32 bit, as a weight that is stored as a difference
    compare(elementwise.add_rms_norm, wide(37, size, kind), weight, 1e-5, wide(37, size, kind), wide(37, size, kind, 0))


@pytest.mark.parametrize("size", [96, 896, 4096])
@pytest.mark.parametrize("adds", [True, False])
def test_rms_norm_backward(compare, kind, size, adds):
    weight, residual = torch.rand(size, device=DEVICE).to(kind), wide(37, size, kind) if adds else None
    compare(
        elementwise.rms_norm_backward,
        wide(37, size, kind, 0), wide(37, size, kind), weight, 1e-5, residual, wide(37, size, kind, 16),
    )  # fmt: skip


@pytest.mark.parametrize("heads", [(4, 2, 16), (14, 2, 64), (32, 8, 128), (9, 3, 64), (4, 4, 96), (8, 4, 256)])
@pytest.mark.parametrize("share", [1.0, 0.75])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate(compare, kind, heads, share, normed):
    query, key, size = heads
    width = (query + 2 * key) * size
    angle = torch.rand(37, int(size * share) // 2, device=DEVICE) * 6
    angles = angle.cos().to(kind), angle.sin().to(kind)
    norms = torch.rand(2, size, device=DEVICE).to(kind) if normed else None
    x = wide(37, width, kind, 0)
    compare(elementwise.rotate, x, angles, heads, norms, 1e-6, torch.zeros_like(x)[:, : (query + key) * size])
    grads = tuple(torch.randn(37, count, size, device=DEVICE).to(kind) for count in (query, key, key))
    out = torch.zeros(37, width + 24, device=DEVICE, dtype=kind)[:, :width]
    compare(elementwise.rotate_backward, grads, x, angles, heads, norms, 1e-6, out)


@pytest.mark.parametrize("size", [96, 4864])
@pytest.mark.parametrize("activation", elementwise.ACTIVATIONS)
def test_gated(compare, kind, size, activation):
    gate_up = wide(37, 2 * size, kind, 32)
    compare(elementwise.gated, gate_up, wide(37, size, kind, 16), activation)
    for again in (True, False):
        compare(elementwise.gated_backward, wide(37, size, kind, 0), gate_up, again, activation)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("size", [200, 49152])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.25, 3.0)])
def test_token_logps(compare, kind, gradient, size, scale, softcap):
    logits = torch.randn(5, size, device=DEVICE).to(kind) * 4
    targets = torch.randint(size, (5,), device=DEVICE)
    compare(elementwise.token_logps, logits, targets, torch.zeros(5, device=DEVICE), 4.0 * gradient, scale, softcap)


@pytest.mark.parametrize("nested", [False, True])
def test_unpack_nf4_gives_the_same_bits_as_bitsandbytes(kind, nested):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    kernels = pytest.importorskip("tunewright.training.kernels.triton_kernels")
    weight = torch.randn(160, 128, device=DEVICE).to(kind)
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type="nf4")
    out = torch.zeros(160, 144, device=DEVICE, dtype=kind)
    kernels.unpack_nf4(packed, state, out[:, :128])
    assert torch.equal(out[:, :128], dequantize_4bit(packed, state))
    assert not out[:, 128:].any()


@pytest.mark.parametrize("nested", [False, True])
def test_unpack_experts(kind, nested):
    """Their matrices lie apart, as the experts' LoRA factors lie between them."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    kernels = pytest.importorskip("tunewright.training.kernels.triton_kernels")
    weight = torch.randn(3, 48, 64, device=DEVICE).to(kind)
    packed, state = quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type="nf4")
    out = torch.zeros(3, 56, 72, device=DEVICE, dtype=kind)
    kernels.unpack_nf4(packed, state, out[:, :48, :64])
    assert torch.equal(out[:, :48, :64], dequantize_4bit(packed, state))
    assert not out[:, 48:].any()
    assert not out[:, :, 64:].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_sorted_by_expert(compare, kind, weighted):
    x, positions = wide(24, 96, kind), torch.randperm(24, device=DEVICE).view(8, 3)
    weights = torch.rand(8, 3, device=DEVICE).to(kind) if weighted else None
    compare(elementwise.gather_rows, x, torch.randint(24, (37,), device=DEVICE), wide(37, 96, kind, 16))
    compare(elementwise.combine_rows, x, positions, weights, wide(8, 96, kind, 0))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter cuts where the hardware rounds")
def test_quantize_rows():
    kernels = pytest.importorskip("tunewright.training.kernels.triton_kernels")
    x = torch.randn(37, 300, device=DEVICE) * torch.logspace(-6, 3, 37, device=DEVICE)[:, None]
    out = torch.empty(37, 300, device=DEVICE, dtype=torch.float8_e4m3fn)
    scales = torch.empty(37, 1, device=DEVICE)
    kernels.quantize_rows(x, out, scales, elementwise.E4M3_MAX)
    assert ((out.float() * scales - x).abs() <= x.abs() / 15 + scales * 2**-9).all()
    plain = SimpleNamespace(values=elementwise.quantize_rows(x.cpu()))
    torch.testing.assert_close(scales.cpu(), plain.values[1])
