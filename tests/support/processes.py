"""Processes that tests start: waiting for what they do, and letting them be interrupted."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from support import PROJECT

# One process for all of them, since each imports for seconds.
_RUN_LINES = """
import json, sys
from click.testing import CliRunner
from processing.__main__ import main
done = [CliRunner().invoke(main, line) for line in json.loads(sys.argv[1])]
print(json.dumps([[result.exit_code, result.output, str(result.exc_info[0])] for result in done]))
"""


def run_lines(
    *lines: Sequence[object], environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> list[tuple[int, str]]:
    """How command lines ended in another process, and what each said; none of them by a traceback.

    Args:
        environment: of the process, if not this one's.
        prefix: a command that starts it.
    """
    given = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _RUN_LINES, given],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert {raised for _, _, raised in ended} == {str(SystemExit)}, ended
    return [(code, said) for code, said, _ in ended]


def heed_interrupts() -> None:
    """What a terminal's own command does; one that a script put into the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Return when the condition is true, or when the process has ended before."""
    end = time.monotonic() + 60
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < end
        time.sleep(0.002)
