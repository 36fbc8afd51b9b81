"""What the commands have in common: how they print and fail, and options that several have."""

import os
import re
import signal
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any

import click


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show errors that name the file and the remedy without a traceback.

    Those are errors of classes of our own and of the operating system; one whose class has `exit_code = 2` is
    wrong usage. Any other error is a fault of this program and shows where it happened.
    """

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupted)
        try:
            _refuse_empty(kwargs)
            _begin_imports(click.get_current_context())
            command(*args, **kwargs)
        except click.ClickException as error:
            raise type(error)(printable(error.message)) from error
        except KeyboardInterrupt:
            if _patience is not None:
                _end_soon()  # what is printed now is not said twice
            raise click.ClickException(_INTERRUPTED) from None
        except MemoryError as error:
            raise click.ClickException(
                f"there is not enough memory ({printable(str(error)) or 'none is left'}); "
                "give the command more, or fewer --workers"
            ) from error
        except ImportError as error:  # an extra is not installed
            raise click.UsageError(printable(str(error))) from error
        except Exception as error:
            ours = type(error).__module__.partition(".")[0] in ("ImageNet3D", "processing")
            if getattr(error, "exit_code", 1) == 2:
                raise click.UsageError(printable(str(error))) from error
            if ours or isinstance(error, OSError):
                raise click.ClickException(printable(str(error))) from error
            raise

    return run


def printable(text: str) -> str:
    """Text as it may go to a terminal: names and values come from outside, and could drive it.

    All that commands print goes through here, once.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text
    )


def say(text: str) -> None:
    """Print to the terminal, or to where the output goes."""
    click.echo(printable(text))


_INTERRUPTED = "interrupted; run the same command again to go on"
_PATIENCE = 1  # seconds from Ctrl-C to the message, and from there to the end
_patience: threading.Timer | None = None


def _interrupted(*_: object) -> None:
    """End a command at the first Ctrl-C, in any case.

    Some code drops what is raised in it and goes on: of packages, while they are imported, and of Python,
    while an object is deleted. Wherever a command ends, what has a name is whole, and its workers end too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would end this without the message
    _end_soon(f"Error: {_INTERRUPTED}\n")
    raise KeyboardInterrupt


def _end_soon(message: str = "") -> None:
    """End this process in a while, whatever it is at; only the last call counts."""
    global _patience
    if _patience is not None:
        _patience.cancel()

    def end() -> None:
        os.write(2, message.encode())
        os._exit(1)

    _patience = threading.Timer(_PATIENCE, end)
    _patience.daemon = True
    _patience.start()


def _refuse_empty(given: Mapping[str, Any]) -> None:
    """An empty path or name is a variable that is not set, and none of the defaults is meant by it."""
    parameters = {parameter.name: parameter for parameter in click.get_current_context().command.params}
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and not text.strip() for text in values):
            is_option = isinstance(parameter := parameters[name], click.Option)
            typed = parameter.opts[0] if is_option else parameter.human_readable_name
            raise click.UsageError(f"{typed} is empty; is a variable not set?")


def _begin_imports(context: click.Context) -> None:
    """Have the process that workers are forked from import what they need, while this one imports the same.

    Called before anything that takes long is imported, and not before usage that is plainly wrong is told.
    """
    given = context.params
    if "workers" in given and given.get("scheduler") is None:
        from processing.runtime.tasks import start_server

        start_server(given["workers"], f"processing.{context.command.name}.command", "processing.__main__")


class NameOf(click.ParamType):
    """One of the names that a module lists, which is imported when a name is given.

    Args:
        constant: of that module, such as "SPLITS".
        others: further names.
    """

    name = "name"

    def __init__(self, constant: str, *others: str, module: str = "ImageNet3D") -> None:
        self._module, self._constant, self._others = module, constant, others

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name itself; an error that lists all names for any other."""
        if ctx is not None:
            _begin_imports(ctx)
        names = [*getattr(import_module(self._module), self._constant), *self._others]
        return click.Choice(names).convert(value, param, ctx)


def where_it_runs(command: Callable[..., None]) -> Callable[..., None]:
    """The options --workers and --scheduler, which are read before the others: see `_begin_imports`."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1),
        is_eager=True,
        callback=_not_both,
        help="Processes; as many as there are cores by default.",
    )
    scheduler = click.option(
        "--scheduler",
        metavar="ADDRESS",
        is_eager=True,
        callback=_not_both,
        help="Work on a Dask cluster instead: tcp://host:8786, or the path of a scheduler file.",
    )
    return workers(scheduler(command))


def _not_both(context: click.Context, _: click.Parameter, value: Any) -> Any:
    """Called for each of the two, in the order in which they were given."""
    others = (context.params.get(name) for name in ("workers", "scheduler"))
    if value is not None and any(other is not None for other in others):
        raise click.UsageError("--scheduler: the cluster has its own number of workers; leave out --workers")
    return value


corrections = click.option(
    "--corrections",
    multiple=True,
    metavar="FILE",
    help="Corrections of the release, as JSON lines (docs/corrections.md); may be repeated.",
)


def a_repository(_: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """A name on the Hub, with its owner."""
    if name is None or not name.strip():  # which `_refuse_empty` names as it was typed
        return name
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise click.BadParameter(str(error), param=parameter) from error
    if name.count("/") != 1:
        raise click.BadParameter(f"{name}: name the owner too, such as ccvl/ImageNet3D", param=parameter)
    return name


def a_size(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Bytes, with a unit or without."""
    _begin_imports(context)
    from processing.build.plan import parsed_size

    try:
        if text is not None:
            parsed_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error
    return text


def width_and_height(_: click.Context, parameter: click.Parameter, text: str) -> tuple[int, int]:
    """One number for both, or two."""
    if (match := re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text)) is None:  # noqa: RUF001
        raise click.BadParameter(f"{text!r} is neither N nor WxH", param=parameter)
    return int(match[1]), int(match[2] or match[1])
