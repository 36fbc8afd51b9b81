"""Processor time, by the pace of the machine at that moment."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_IDLE = 0.05  # seconds that a million calls take where nothing else is going on


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """What is done here takes no more processor time of this process than so many seconds of an idle machine.

    Which is no less than a clock shows there. Where the machine is slower, or its cores are shared just now,
    there is more time in proportion.
    """
    began = time.process_time()
    yield
    taken = time.process_time() - began
    if taken >= seconds:
        given = seconds * max(pace() for _ in range(5))  # which changes within seconds
        assert taken < given, f"{taken:.2f} s, where {given:.2f} s are given"


def pace() -> float:
    """How many times as long as on an idle machine a thing takes just now; at least 1."""
    return max(1.0, _a_million_calls() / _IDLE)


def _a_million_calls() -> float:
    start = time.process_time()
    for _ in range(10**6):
        len(b"")
    return time.process_time() - start
