"""What all commands share: the application, the common options, an open platform, and how errors end.

Exit codes: 0 fine, 1 failed, 2 wrong use, 130 stopped by Ctrl-C. An error is one line on stderr that begins with
`error:`; a traceback is shown only with FLYBALL_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.exceptions
from typer.core import TyperGroup

from flyball.errors import FlyballError, InvalidInput, did_you_mean

if TYPE_CHECKING:
    from flyball.platform import Platform

__all__ = ["Before", "Home", "Json", "Limit", "WrongUse", "app", "main", "opened", "reference"]

_ORDER = (
    *("init", "plan", "apply", "up", "demo", "run", "publish", "data", "contract", "model", "search", "get"),
    *(
        "describe",
        "events",
        "why",
        "logs",
        "import",
        "reproduce",
        "predict",
        "score",
        "sql",
        "topic",
        "label",
        "experiment",
    ),
    *("promote",),
    *("approvals", "review", "approve", "history"),
    *("card", "risk", "rollback", "delete", "erase", "retention"),
    *("verify", "version"),
)


class _Ordered(TyperGroup):
    """Lists the commands as one meets them, not in the order of the modules."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (the name is the base's)
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


app = typer.Typer(
    name="flyball",
    cls=_Ordered,
    help="Keeps machine-learning systems healthy: trains, checks, ships, watches, retrains, and says why.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

Home = Annotated[Path | None, typer.Option("--home", metavar="DIR", help="The home; default: FLYBALL_HOME, .flyball.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]
Before = Annotated[
    str | None, typer.Option("--before", metavar="LAST", help="Go on after the last item of the page before.")
]


class WrongUse(InvalidInput):
    """The command line itself is wrong, not what it led to: exit code 2."""


@app.callback(invoke_without_command=True)
def _before_all(
    context: typer.Context,
    home: Home = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    context.obj = home
    if home is not None:
        os.environ["FLYBALL_HOME"] = str(home.absolute())  # what every command, and what it starts, falls back on
    if version:
        print_version()
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    if version:
        raise typer.Exit


@app.command("version")
def print_version() -> None:
    """Print the version."""
    from flyball import __version__

    typer.echo(f"flyball {__version__}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, `sys.argv` by default, and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still buffered must not fail at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


@contextmanager
def opened(home: Path | None, *, create: bool = False) -> Iterator[Platform]:
    """Open the platform of a home for the length of a command.

    Raises:
        NotFound: there is no home, and `create` is false.
    """
    from flyball.platform import Platform

    platform = Platform.open(home, create=create)
    try:
        yield platform
    finally:
        platform.close()


def reference(what: str, name: str | None = None) -> str:
    """Return `kind/name` from one argument, `deployment/late`, or two, `deployment late`; needs an open platform.

    Raises:
        WrongUse: it is no reference, or the kind is unknown.
    """
    from flyball.ledger import kinds
    from flyball.ledger.refs import ref

    text = what if name is None else f"{what}/{name}"
    kind, slash, rest = text.partition("/")
    try:
        if not slash:
            raise WrongUse(f'"{text}" is not a reference; write it like deployment/late')
        if kind.removesuffix("s") in ("run", "event", "quarantine"):
            return str(ref(f"{kind.removesuffix('s')}/{rest}"))
        return str(ref(f"{kinds.kind_of(kind).word}/{rest}"))
    except InvalidInput as error:
        raise WrongUse(str(error)) from None


def _run(given: list[str]) -> int:
    is_debugging = os.environ.get("FLYBALL_DEBUG", "") not in ("", "0")
    command = typer.main.get_command(app)
    try:
        code = command.main(args=given, prog_name="flyball", standalone_mode=False)
    except SystemExit:
        raise BrokenPipeError from None  # typer leaves in this way when stdout is closed, and in no other
    except typer.exceptions.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself; the message is the help
            print(error.format_message(), file=sys.stderr)
            return error.exit_code
        return _say(_wrong_use(error, given), error.exit_code)
    except FlyballError as error:
        if is_debugging:
            raise
        return _say(str(error), 2 if isinstance(error, WrongUse) else 1)
    except BrokenPipeError:
        raise
    except typer.Abort:
        return _say("stopped", 1)
    except Exception as error:
        if is_debugging:
            raise
        first = (str(error).splitlines() or [""])[0][:300]
        told = f"{type(error).__name__}: {first}" if first else type(error).__name__
        return _say(f"an internal error ({told}); FLYBALL_DEBUG=1 shows where", 1)
    if code == 130:
        print("stopped by Ctrl-C", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _say(sentence: str, code: int) -> int:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _wrong_use(error: typer.exceptions.TyperException, given: list[str]) -> str:
    """Return typer's message in our form."""
    message = error.format_message().strip().rstrip(".")
    message, _, _ = message.partition(". Did you mean")
    message, _, _ = message.partition(" (Possible options")
    near = ""
    context = getattr(error, "ctx", None)
    wanted = getattr(error, "option_name", None)
    if message.startswith("No such command"):
        word = next((a for a in given if not a.startswith("-") and repr(a) in message), "")
        group: Any = context.command if context is not None else typer.main.get_command(app)
        near = did_you_mean(word, group.list_commands(context))
    elif wanted is not None and context is not None:
        near = did_you_mean(wanted, [name for p in context.command.params for name in p.opts])
    helped = getattr(context, "command_path", None) or "flyball"
    return f"{message[:1].lower()}{message[1:]}" + (near or f"; see {helped} --help")
