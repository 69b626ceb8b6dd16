"""Builds the wheel and the sdist, checks them, and installs the wheel as users do: pip, pipx, uv tool install, uvx.

Run by ``make release-check``, before a release. Each way gets a bare environment with a home of its own, runs the
command, and is removed again. Whatever configures pip and uv in the environment (PIP_*, UV_*) is in force, so that a
machine without a GPU takes a CPU build of torch. Other interpreters: ``release/check.py --python 3.13``.

Times are cold, with the download apart: pip downloads first (``download_s``) and installs from that; uv begins with an
empty cache (``with_download_s``) and installs again from it, as pipx and uvx then do. ``install_s`` is without a
download. ``--record benchmarks/results/install.json`` writes them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "release"
WHEELS, CACHE = BUILD / "wheels", BUILD / "cache"
MAX_BYTES = 5_000_000
WAYS = ("pip", "uv tool install", "pipx", "uvx")
_TOOLS = ("build", "twine", "pipx", "uv")
_OUTSIDE = ("tests", "benchmarks", "recipes", "notebooks", "docs", "release")  # folders of the repository alone
_RECORDS = (".tar.gz", ".whl", ".safetensors", ".gguf", ".pyc")


def names_in(archive: Path) -> list[str]:
    """Return the files of a wheel or an sdist; of an sdist without its leading folder."""
    if archive.suffix == ".whl":
        return zipfile.ZipFile(archive).namelist()
    with tarfile.open(archive) as opened:
        return [member.name.partition("/")[2] for member in opened if member.isfile()]


def faults(archive: Path, source: Path) -> list[str]:
    """Return what is wrong with the contents of an archive: missing, too much, too large.

    Args:
        archive: a wheel or an sdist.
        source: the package's folder, all of whose files but caches have to be inside.
    """
    names, is_wheel = set(names_in(archive)), archive.suffix == ".whl"
    prefix = "" if is_wheel else "src/"
    expected = {
        prefix + path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = [f"{archive.name} lacks {name}" for name in sorted(expected - names)]
    found += [f"{archive.name} holds {name}" for name in sorted(names) if name.split("/")[0] in _OUTSIDE]
    found += [f"{archive.name} holds {name}" for name in sorted(names) if name.endswith(_RECORDS)]
    if archive.stat().st_size > MAX_BYTES:
        found.append(f"{archive.name} has {archive.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    return found


def run(*words: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command; return what it prints to stdout."""
    print("$", *words, flush=True)
    environment = {**os.environ, **(env or {})}
    result = subprocess.run(list(map(str, words)), env=environment, cwd=cwd, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{words[0]} ended with {result.returncode}\n{result.stdout}")
    return result.stdout


def build() -> tuple[Path, Path]:
    """Return the folder of the tools' programs and the built wheel, once both archives are as they should be."""
    shutil.rmtree(BUILD, ignore_errors=True)
    tools = BUILD / "tools"
    run(sys.executable, "-m", "venv", tools)
    run(tools / "bin" / "python", "-m", "pip", "install", "--quiet", *_TOOLS)
    run(tools / "bin" / "python", "-m", "build", "--outdir", BUILD / "dist", ROOT)
    archives = sorted((BUILD / "dist").iterdir())
    run(tools / "bin" / "twine", "check", "--strict", *archives)
    if wrong := [text for archive in archives for text in faults(archive, ROOT / "src" / "tunewright")]:
        sys.exit("\n".join(wrong))
    for archive in archives:
        print(f"{archive.name}: {len(names_in(archive))} files, {archive.stat().st_size:,} bytes")
    return tools / "bin", next(archive for archive in archives if archive.suffix == ".whl")


def environment_of(home: Path) -> dict[str, str]:
    """Return what keeps an installation in a home of its own; the cache is shared and begins empty."""
    env = {"HOME": str(home), "PIPX_HOME": str(home / "pipx"), "PIPX_BIN_DIR": str(home / "bin")}
    env |= {
        "UV_TOOL_DIR": str(home / "uv"),
        "UV_TOOL_BIN_DIR": str(home / "bin"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    if WHEELS.exists():
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(WHEELS)}
    return env | {"UV_CACHE_DIR": str(CACHE), "UV_LINK_MODE": "copy"}


def install(way: str, tools: Path, wheel: Path, python: str, home: Path) -> tuple[list[object], float]:
    """Install the wheel in one way into an empty home; return the words that begin its command, and the seconds."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    env = environment_of(home)
    start = time.monotonic()
    if way == "pip":
        run(python, "-m", "venv", home / "venv")
        run(home / "venv" / "bin" / "pip", "install", "--quiet", wheel, env=env)
        words: list[object] = [home / "venv" / "bin" / "tunewright"]
    elif way == "pipx":
        run(tools / "pipx", "install", "--python", python, wheel, env=env)
        words = [home / "bin" / "tunewright"]
    elif way == "uv tool install":
        run(tools / "uv", "tool", "install", "--python", python, wheel, env=env)
        words = [home / "bin" / "tunewright"]
    else:
        words = [tools / "uvx", "--python", python, "--from", wheel, "tunewright"]
    assert "Start here" in run(*words, "--help", env=env)
    return words, round(time.monotonic() - start, 1)


def download(wheel: Path, python: str) -> float:
    """Let pip download the wheel's dependencies for an interpreter; return the seconds."""
    start = time.monotonic()
    run(python, "-m", "pip", "download", "--quiet", "--dest", WHEELS, wheel)
    return round(time.monotonic() - start, 1)


def tried(way: str, tools: Path, wheel: Path, python: str, demo: bool) -> dict[str, object]:
    """Install the wheel in one way and use it, if wanted also for the demo; return the seconds that it took."""
    home, row = BUILD / "home", dict[str, object](way=way)
    try:
        if way == "pip":
            row["download_s"] = download(wheel, python)
        elif not CACHE.exists():
            row["with_download_s"] = install(way, tools, wheel, python, home)[1]
        program, row["install_s"] = install(way, tools, wheel, python, home)
        env = environment_of(home)
        version = run(*program, "--version", env=env).split()[-1]
        assert f"-{version}-" in wheel.name, version
        (home / "report.md").write_text("# Report\n\nThe pump of hall 3 was replaced on 4 May.\n", encoding="utf-8")
        run(*program, "init", "report.md", env=env, cwd=home)
        checks = json.loads(run(*program, "doctor", "--json", env=env, cwd=home))
        assert checks["passed"], checks
        if demo:
            run(*program, "doctor", "--fetch", env=env, cwd=home)
            begun = time.monotonic()
            run(*program, "demo", env=env, cwd=home)
            print(f"the demo took {time.monotonic() - begun:.0f} s from its start to its verdict")
        folder = CACHE if way == "uvx" else home
        return {**row, "size_mb": round(sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6)}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, check and install; print a line for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter for the installations")
    parser.add_argument("--way", action="append", choices=WAYS, help="only these ways (default: all)")
    parser.add_argument("--demo", action="store_true", help="also run the demo in each, and time it")
    parser.add_argument("--record", type=Path, help="a file for the seconds and sizes")
    chosen = parser.parse_args(arguments)
    tools, wheel = build()
    rows = [tried(way, tools, wheel, chosen.python, chosen.demo) for way in chosen.way or WAYS]
    for folder in (WHEELS, CACHE):
        shutil.rmtree(folder, ignore_errors=True)
    for row in rows:
        print(json.dumps(row))
    if chosen.record:
        version = run(chosen.python, "--version").split()[-1]
        record = {"date": time.strftime("%Y-%m-%d"), "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared"}
        record |= {"load_average": round(os.getloadavg()[0], 1), "python": version, "wheel": wheel.name}
        chosen.record.write_text(json.dumps({**record, "ways": rows}, indent=2) + "\n", encoding="utf-8")
    print(f"ready to publish: {tools / 'twine'} upload {wheel.parent}/*")


if __name__ == "__main__":
    main()
