"""The commands that use a tuned model: chat, serve, export, publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunewright.cli.options import folder_argument


@click.command()
@folder_argument
@click.option("--base", is_flag=True, help="Chat with the base model.")
@click.option("--side-by-side", is_flag=True, help="Get each answer from base and tuned.")
@click.option("--prompt", help="Ask one question and exit.")
def chat(folder: Path, base: bool, side_by_side: bool, prompt: str | None) -> None:
    """Chat with the tuned model; answers are streamed, and /help lists the commands."""
    from tunewright.commands.chat import chat as open_chat
    from tunewright.run_folder import RunFolder
    from tunewright.settings import Arm

    if base and side_by_side:
        raise click.UsageError("--base and --side-by-side exclude each other. Choose one.")
    arms = (Arm.BASE, Arm.TUNED) if side_by_side else (Arm.BASE,) if base else (Arm.TUNED,)
    open_chat(RunFolder.open(folder), arms, prompt)


@click.command()
@folder_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "vllm", "llama.cpp", "transformers"]),
    default="auto",
    show_default=True,
    help="transformers answers exactly as chat does; the others are faster.",
)
@click.option(
    "--dtype",
    type=click.Choice(["q8_0", "f16", "f32"]),
    default="q8_0",
    show_default=True,
    help="Of the GGUF, where llama.cpp serves.",
)
def serve(folder: Path, host: str, port: int, engine: str, dtype: str) -> None:
    """Serve the tuned model to OpenAI clients, once a canary has shown that it is the tuned one."""
    from tunewright.commands.serve import serve as serve_run
    from tunewright.run_folder import RunFolder

    serve_run(RunFolder.open(folder), host, port, engine, dtype)


@click.command()
@folder_argument
@click.option("--to", "target", required=True, metavar="TARGET", help="adapter, merged, gguf, gguf-adapter or ollama.")
@click.option(
    "--dtype",
    default="",
    metavar="TYPE",
    help="Type of the weights (merged: bf16, fp16, fp32; gguf, ollama: f16, q8_0, q6_k, q5_k_m, q4_k_m, q4_0, bf16).",
)
@click.option(
    "--base",
    type=click.Choice(["trained", "original"]),
    default="trained",
    show_default=True,
    help="The base as training saw it, or the unquantized one.",
)
@click.option(
    "-o", "output", type=click.Path(path_type=Path), help="Folder to write (default: DIR/exports/TARGET-DTYPE)."
)
def export(folder: Path, target: str, dtype: str, base: Any, output: Path | None) -> None:
    """Export the tuned model, with a certificate that it is the model that was evaluated."""
    from tunewright.export.certificate import show_certificate
    from tunewright.export.stage import export as write
    from tunewright.pipeline import require_unchanged
    from tunewright.run_folder import RunFolder

    run = RunFolder.open(folder)
    require_unchanged(run)
    show_certificate(write(run, target, output, dtype, base))


@click.command()
@click.argument("folder", metavar="EXPORT", type=click.Path(path_type=Path))
@click.option("--replay", is_flag=True, help="Train again from the receipt instead, and compare the adapters.")
@click.option("--dir", "run", type=click.Path(path_type=Path), help="Run folder of --replay, where EXPORT was moved.")
def verify(folder: Path, replay: bool, run: Path | None) -> None:
    """Check that every file of an export is as it was written."""
    from tunewright import console
    from tunewright.export.receipt import verify as check

    if run and not replay:
        raise click.UsageError("--dir names the run folder of --replay. Add --replay, or leave --dir out.")
    if replay:
        from tunewright.commands.replay import replay as train_again

        train_again(folder, run)
        return
    console.line(f"{len(check(folder)['files'])} files of {folder} are as they were exported")


@click.command()
@folder_argument
@click.argument("repo", metavar="REPO")
@click.option("--to", "target", default="adapter", show_default=True, help="The adapter, or an export in DIR/exports.")
@click.option("--yes", is_flag=True, help="Send it; without this, everything is only shown.")
@click.option("--private/--public", default=True, show_default=True, help="Who may read it.")
@click.option("--with-data", is_flag=True, help="Push the training set too, to REPO-data.")
def push(folder: Path, repo: str, target: str, yes: bool, private: bool, with_data: bool) -> None:
    """Push the tuned model to the hub as REPO (OWNER/NAME), with a model card of its results."""
    from tunewright.commands.push import push as push_run
    from tunewright.run_folder import RunFolder

    push_run(RunFolder.open(folder), repo, target, yes, not private, with_data)


@click.command()
@click.option("--allow-runs", is_flag=True, help="Also let it write recipes, preview, run and stop.")
def mcp(allow_runs: bool) -> None:
    """Serve these commands to agents on stdin and stdout, by the Model Context Protocol."""
    from tunewright.commands.mcp import serve_mcp

    serve_mcp(allow_runs)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--host", default="127.0.0.1", show_default=True, help="Any but the loopback needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes a free one.")
def studio(folder: Path, host: str, port: int) -> None:
    """Open the local web app for the runs in FOLDER (default: the current one); it starts these same commands."""
    from tunewright.studio.app import serve as serve_studio

    serve_studio(folder, host, port)


COMMANDS = (
    studio,
    chat,
    serve,
    export,
    verify,
    push,
    mcp,
)
