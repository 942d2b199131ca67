"""Help and complaints of the command line in the language in use: they are written down before that is known."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from engine.base.language import N_, _
from engine.base.plain import one_line

WIDEST_HELP = 100
HELP_OPTION = N_("Show this message and exit.")

# Typer's commands, parameters and contexts have no public names.
Command = Any
Context = Any


def translate(command: Command) -> None:
    """Put a command's help, its options' and its subcommands' into the language in use."""
    for holder, text in _texts(command):
        holder.help = _(text)
    for one in _commands(command):
        one.get_help = lambda context, command=one: help_of(command, context)


def texts(command: Command) -> set[str]:
    """Everything that `translate` translates."""
    return {text for _holder, text in _texts(command)}


def show_help(context: typer.Context) -> None:
    """What a group of commands does without one of them."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def help_of(command: Command, context: Context) -> str:
    """What `--help` prints; columns hold characters of two cells too."""
    from rich.console import Console
    from rich.padding import Padding

    console = Console(highlight=False, no_color=True, emoji=False, markup=False)
    console.width = min(console.width, WIDEST_HELP)
    usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
    parameters = [(one, one.get_help_record(context)) for one in command.get_params(context)]
    subcommands = getattr(command, "commands", {}).items()
    with console.capture() as capture:
        console.print(_("Usage: {usage}", usage=usage))
        if command.help:
            console.print("\n" + inspect.cleandoc(command.help).replace("\f", ""))
        for title, rows in (
            (_("Arguments"), [row for one, row in parameters if row and one.param_type_name == "argument"]),
            (_("Options"), [row for one, row in parameters if row and one.param_type_name != "argument"]),
            (_("Commands"), [(name, one.help or "") for name, one in subcommands]),
        ):
            if rows:
                console.print(f"\n{title}:")
                console.print(Padding(_columns(rows), (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def complaint(error: Any) -> str:
    """What Typer found wrong with what was typed, in one line."""
    kind, option = type(error).__name__, getattr(error, "option_name", "")
    parameter = getattr(error, "param", None)
    if kind == "NoSuchOption":
        perhaps = ", ".join(error.possibilities or ())
        return _("there is no option {name}", name=option) + (_(" (perhaps {names})", names=perhaps) if perhaps else "")
    if kind == "BadOptionUsage":
        return _("{name} needs a value", name=option)
    if parameter is not None and kind == "MissingParameter":
        return _("{name} is missing", name=_called(parameter))
    if parameter is not None and kind == "BadParameter":
        needed = {int: _("it takes a whole number"), float: _("it takes a number")}
        why = needed.get(parameter.type_descriptor.annotation, one_line(error.message))
        return _("{name} cannot be used: {why}", name=_called(parameter), why=why)
    if error.message.startswith("Got unexpected extra argument"):
        return _("too many arguments: {names}", names=error.message.rpartition("(")[2].rstrip(")"))
    return str(error.format_message()).rstrip(".")


def _columns(rows: Sequence[tuple[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(name), Text(_(HELP_OPTION) if text == HELP_OPTION else inspect.cleandoc(text)))
    return table


def _called(parameter: Any) -> str:
    """What people call a parameter: `--top-k`, or TEXT of an argument."""
    return str(parameter.opts[0]) if parameter.opts[0].startswith("-") else str(parameter.name).upper()


def _commands(command: Command) -> Iterator[Command]:
    yield command
    for subcommand in getattr(command, "commands", {}).values():
        yield from _commands(subcommand)


def _texts(command: Command) -> Iterator[tuple[Any, str]]:
    for one in _commands(command):
        for holder in (one, *one.params):
            if text := getattr(holder, "help", None):
                yield holder, text
