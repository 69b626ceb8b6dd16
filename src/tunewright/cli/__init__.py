"""The commands: one short function each. Flags name paths and actions; settings are in the recipe."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tunewright.cli import build, deploy, inspect
from tunewright.environment import __version__

if TYPE_CHECKING:
    from tunewright.errors import TunewrightError

_SECTIONS = (("Build", build.COMMANDS), ("Inspect", inspect.COMMANDS), ("Deploy", deploy.COMMANDS))


_INTERRUPTED = 130

# OpenMP threads meet thousands of times per training step. Long spinning there makes a step thirty times slower as
# soon as another program wants a core; a short spin costs nothing. Read when torch is loaded, so set before.
_SPIN = ("GOMP_SPINCOUNT", "1000")


# Commands of version 0.1 that are gone, and what took their place.
_FORMER = {
    "ingest": "run RECIPE --until ingest",
    "synth": "run RECIPE --until synth",
    "curate": "run RECIPE --until curate",
    "table": "compare DIR...",
    "replay": "verify --replay EXPORT",
}


class _BySection(click.Group):
    """Lists the commands by what they are for, in the order in which they are needed."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for each section."""
        for title, listed in _SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(100)) for command in listed])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; a former one is an error with its replacement."""
        if args and args[0] in _FORMER:
            raise click.UsageError(f"{args[0]} is no longer a command. Type: tunewright {_FORMER[args[0]]}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_BySection, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Documents in, fine-tuned adapter and an honest verdict out: was the fine-tune worth it?

    \b
    Start here:
      tunewright demo                        labeled reports to a verdict, five minutes on two CPU cores
      tunewright init DOCS -o recipe.toml    a recipe for your own documents
      tunewright run recipe.toml             documents to verdict; run it again to continue after any stop
    """  # noqa: D301 (click reads \b)


for _, _listed in _SECTIONS:
    for _command in _listed:
        commands.add_command(_command)


def report_error(error: BaseException, as_json: bool = False) -> int:
    """Print an error, with ``as_json`` also as a document on stdout; return its exit code."""
    from tunewright import console
    from tunewright.console import visible, without_secrets
    from tunewright.errors import TunewrightError, command, trouble

    if isinstance(error, KeyboardInterrupt):
        console.line("\ninterrupted; a run keeps its finished work, and the same command continues it")
        failure = TunewrightError("interrupted", "a run keeps its finished work", "the same command continues it")
        return _document(failure, "interrupted", _INTERRUPTED) if as_json else _INTERRUPTED
    if os.environ.get("TUNEWRIGHT_TRACEBACK"):
        import traceback

        click.echo(visible(without_secrets("".join(traceback.format_exception(error)))), err=True, nl=False)
    error = trouble(error) or error
    exit_code = 3
    if isinstance(error, TunewrightError):
        failure, exit_code = error, error.exit_code
    else:
        failure = TunewrightError(
            f"unexpected {type(error).__name__}: {error}",
            "this is a defect in tunewright; finished work is kept",
            "see where it happened: TUNEWRIGHT_TRACEBACK=1 " + command(*sys.argv[1:]),
        )
    console.error(failure)
    return _document(failure, failure.code, exit_code) if as_json else exit_code


def _report_usage(error: click.ClickException, as_json: bool) -> int:
    """Print what is wrong with a command line; return its exit code."""
    from tunewright.console import visible, without_secrets
    from tunewright.errors import TunewrightError

    shown = io.StringIO()
    error.show(shown)
    click.echo(visible(without_secrets(shown.getvalue())), err=True, nl=False)
    context = getattr(error, "ctx", None)
    failure = TunewrightError(error.format_message(), "", f"{context.command_path if context else 'tunewright'} --help")
    return _document(failure, "usage", error.exit_code) if as_json else error.exit_code


def _document(failure: TunewrightError, code: str, exit_code: int) -> int:
    """Write an error to stdout as JSON; return its exit code."""
    from tunewright import console
    from tunewright.commands.json_documents import ErrorDocument, content

    document = ErrorDocument(
        code=code, headline=failure.headline, cause=failure.cause, hint=failure.hint, exit_code=exit_code
    )
    with contextlib.suppress(Exception):  # a closed stdout: stderr has the error
        console.document(content(document))
    return exit_code


def main(arguments: list[str] | None = None) -> Any:
    """Run a command; the exit code is 0 done, 1 a user's error, 2 usage, 3 a failed stage, 130 interrupted."""
    os.environ.setdefault(*_SPIN)
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = commands.main(args=arguments, prog_name="tunewright", standalone_mode=False)
    except click.ClickException as error:
        sys.exit(_report_usage(error, as_json))
    except (Exception, KeyboardInterrupt, click.Abort) as error:
        sys.exit(report_error(KeyboardInterrupt() if isinstance(error, click.Abort) else error, as_json))
    sys.exit(code if isinstance(code, int) else 0)  # of a command that ends with a code of its own
