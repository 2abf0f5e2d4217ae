"""The command line: one subcommand → one function. Nothing heavy is imported before a command runs.

Exit codes: 0 done; 2 the input or the configuration is at fault; 1 anything else. A fault is one line on stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from typer.exceptions import TyperException

from medgan import __version__
from medgan.cli import commands, generation
from medgan.errors import InputFault, MedganError
from medgan.interrupts import Interrupted, raise_on_signals
from medgan.logs import configure

app = typer.Typer(
    name="medgan",
    help="Class-preserving GAN augmentation of 3-D CT and MRI, and a study that says whether it helped.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"medgan {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="log what is done; -vv: all")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="errors alone: no warnings, no progress bars")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="logs as one JSON object a line")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="say which version this is")
    ] = False,
) -> None:
    """Set up logging for every subcommand."""
    del version, debug  # the latter is looked up in sys.argv by main(), which also serves errors before this runs
    configure(-1 if quiet else verbose, as_json=log_json)
    if quiet:
        os.environ["MEDGAN_QUIET"] = "1"


COMMANDS: tuple[Callable[..., None], ...] = (  # in the order of the help text
    commands.demo,
    commands.check,
    commands.train,
    commands.evaluate,
    generation.generate,
    commands.compare,
    generation.reproduce,
    commands.export,
    commands.info,
)
for function in COMMANDS:
    app.command()(function)


def main() -> None:
    """Run the command line and end with the right exit code."""
    debug = "--debug" in sys.argv[1:]
    # --debug is welcome anywhere on the line.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    raise_on_signals()
    try:
        sys.exit(app(args=arguments, prog_name="medgan", standalone_mode=False) or 0)
    except TyperException as error:
        command = (
            f" {arguments[0]}"
            if arguments[0] in {c.callback.__name__ for c in app.registered_commands if c.callback}
            else ""
        )
        reason = " ".join(error.format_message().split()).rstrip(".")
        typer.echo(f"medgan{command}: USAGE: {reason}, see `medgan{command} --help`", err=True)
        sys.exit(2)
    except InputFault as fault:
        _end(fault, str(fault), fault.exit_code, debug)
    except MedganError as error:
        _end(error, str(error), error.exit_code, debug)
    except Interrupted as interrupted:
        line = f"medgan: INTERRUPTED: stopped by {interrupted}, run the same command again to go on"
        _end(interrupted, line, interrupted.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("medgan: INTERRUPTED: stopped, run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        _end(error, f"medgan: {type(error).__name__}: {reason}, run again with --debug for the traceback", 1, debug)


def _end(error: BaseException, line: str, code: int, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    typer.echo(line, err=True)
    sys.exit(code)
