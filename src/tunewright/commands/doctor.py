"""Is this machine fit for a run? Python, torch, GPU, a real quantized training step, disk, the model cache."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from tunewright import console
from tunewright.errors import UserError
from tunewright.models import source
from tunewright.retrieval import sentence_model

_LEAST_FREE_BYTES = 3_000_000_000
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "xllamacpp")

# Run in a process of its own: a broken bitsandbytes build can take the interpreter down with it.
SELF_TEST = """
import logging, torch
logging.disable(logging.CRITICAL)
import bitsandbytes
device = "cuda" if torch.cuda.is_available() else "cpu"
layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(device)
low = torch.zeros(64, 4, device=device, requires_grad=True)
optimizer = torch.optim.AdamW([low], lr=1e-3)
x = torch.randn(8, 64, device=device)
before = None
for _ in range(2):
    loss = ((layer(x) + x @ low @ torch.ones(4, 64, device=device) - 1) ** 2).mean()
    loss.backward(); optimizer.step(); optimizer.zero_grad()
    assert torch.isfinite(loss) and (before is None or loss < before)
    before = float(loss)
print(device)
"""

Check = Callable[[], tuple[bool, str]]


def examine(fetch: bool) -> None:
    """Print one line per check.

    Args:
        fetch: fetch the embedded models, and convert the first, when the cache lacks them.

    Raises:
        UserError: a check failed.
    """
    if fetch:
        source.model_folder()
        sentence_model.embedded_folder()
    failed = []
    for name, check in CHECKS.items():
        passed, text = check()
        console.data(f"{'ok  ' if passed else 'FAIL'}  {name.ljust(16)} {text}")
        if not passed:
            failed.append(name)
    if failed:
        raise UserError(
            f"{len(failed)} check(s) failed: {', '.join(failed)}",
            "",
            "fix the checks named above, then run it again",
        )


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> tuple[bool, str]:
    present, missing = [], []
    for name in _PACKAGES:
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    lacking = f"; missing: {', '.join(missing)} (pip install {' '.join(missing)})" if missing else ""
    text = ", ".join(present) + lacking
    return not missing, text


def _device() -> tuple[bool, str]:
    import torch

    from tunewright.models.loading import compute_dtype, pick_device

    device = pick_device()
    dtype = str(compute_dtype(device)).removeprefix("torch.")
    if device == "cpu":
        return True, f"no GPU: CPU with {torch.get_num_threads()} threads, computing in {dtype}"
    properties = torch.cuda.get_device_properties(0)
    return True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, computing in {dtype}"


def _quantized_step() -> tuple[bool, str]:
    result = subprocess.run([sys.executable, "-c", SELF_TEST], capture_output=True, text=True, timeout=300, check=False)
    if result.returncode == 0:
        return True, f"NF4 layer and two training steps on {result.stdout.strip()}"
    reason = (result.stderr.strip().splitlines() or [f"ended with {result.returncode}"])[-1]
    return False, f'{reason} (train without it: --set model.quantization="none")'


def _disk() -> tuple[bool, str]:
    folders = {"here": ".", "model cache": str(_existing_cache())}
    free = {name: shutil.disk_usage(path).free for name, path in folders.items()}
    text = ", ".join(f"{name} {num_bytes / 1e9:.0f} GB free" for name, num_bytes in free.items())
    return min(free.values()) >= _LEAST_FREE_BYTES, f"{text} (needed: {_LEAST_FREE_BYTES / 1e9:.0f} GB)"


def _existing_cache() -> str:
    folder = source.cache_folder()
    while not folder.exists():
        folder = folder.parent
    return str(folder)


def _model_cache() -> tuple[bool, str]:
    names = (source.NAME, sentence_model.NAME)
    missing = [name for name in names if not (source.cache_folder() / name / "config.json").is_file()]
    state = "the embedded models are there"
    if missing:
        state = f"no {' and no '.join(missing)} yet; tunewright doctor --fetch gets what is missing"
    return True, f"{source.cache_folder()}: {state}"


CHECKS: dict[str, Check] = {
    "python": _python,
    "packages": _packages,
    "device": _device,
    "quantized step": _quantized_step,
    "disk": _disk,
    "model cache": _model_cache,
}
