"""The command line as a whole: it answers at once, and tells apart what is wrong."""

import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from support import PROJECT
from support.processes import heed_interrupts

from ImageNet3D import DEFAULT_CONFIG
from processing.__main__ import main
from processing.run import BuildError

HEAVY = ("datasets", "numpy", "pyarrow", "PIL", "fsspec", "huggingface_hub")


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["build", "--no-such-option"], ["no-such-command"]]
)
def test_help_and_wrong_usage_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from processing.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print('heavy:', *sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.rstrip().endswith("heavy:"), done.stdout
    assert done.returncode == (0 if words[0] in ("--help", "--version") else 2)


def test_names_are_checked_when_they_are_given() -> None:
    result = CliRunner().invoke(main, ["build", "raw", "out", "--config", "poses"])
    assert result.exit_code == 2
    assert f"'poses' is not one of '{DEFAULT_CONFIG}'" in result.output


def test_a_fault_of_this_program_is_not_told_as_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("processing.build.command.build", faulty)
    result = CliRunner().invoke(main, ["build", "raw", "out"])
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "a fault"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "p.csv", "--dataset", "out", "--repo", " "], "--repo"),
        (["build", "raw", "out", "--config", "pose", "--corrections", ""], "--corrections"),
        (["evaluate", "p.csv", "--dataset", ""], "--dataset"),
        (["evaluate", "p.csv", "--dataset", "out", "--json", ""], "--json"),
        (["evaluate", "p.csv", "--dataset", "out", "--threshold", ""], "--threshold"),
        (["preview", "raw", "page", "--category", ""], "--category"),
        (["annotate", "raw", "--corrections", "f", "--objects", ""], "--objects"),
        (["annotate", "", "--corrections", "f"], "RAW_OR_OUT"),
        (["verify", ""], "OUT"),
    ],
)
def test_what_is_empty_is_named_as_it_was_typed(words: list[str], named: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"Error: {named} is empty; is a variable not set?" in result.output


HOSTILE = "\x1b]0;owned\x07 \u202e\udc80\r"


@pytest.mark.parametrize("fails", [False, True])
def test_what_comes_from_outside_cannot_drive_the_terminal(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object, **__: object) -> str:
        if fails:
            raise BuildError(f"{HOSTILE}: is in use")
        return f"{HOSTILE}: done\nand more"

    monkeypatch.setattr("processing.build.command.build", built)
    result = CliRunner().invoke(main, ["build", "raw", "out"])
    assert result.exit_code == fails
    assert r"\x1b]0;owned\x07 \u202e\udc80\r: " in result.output
    assert all(c.isprintable() or c == "\n" for c in result.output)
    assert fails or "\nand more" in result.output


def test_an_interrupt_is_told_once_however_long_the_end_takes() -> None:
    script = """
import atexit, os, signal, time
import click
from processing.options import plain_errors

@click.command()
@plain_errors
def waits():
    atexit.register(time.sleep, 20)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(20)

waits()
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert done.stderr.splitlines() == ["Error: interrupted; run the same command again to go on"]
    assert done.returncode == 1
    assert time.monotonic() - started < 15
