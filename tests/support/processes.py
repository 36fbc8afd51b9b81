"""Processes that tests start: waiting for what they do, and letting them be interrupted."""

import signal
import subprocess
import time
from collections.abc import Callable


def heed_interrupts() -> None:
    """What a terminal's own command does; one that a script put into the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Return when the condition is true, or when the process has ended before."""
    end = time.monotonic() + 60
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < end
        time.sleep(0.002)
