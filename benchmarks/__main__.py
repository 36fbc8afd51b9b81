"""Runs the benchmarks, prints the tables of README.md and docs/, and writes them as JSON.

    python -m benchmarks --raw RAW [--captions DIR] [--json FILE] [--quick] [--only NAME ...]

Some 45 minutes on two cores, and 40 GB of disk with pictures of 110 KB; `--quick` is a smoke test. Each has a
command of its own, such as `python -m benchmarks.streaming`. What is missing (torch, a peer) is left out, and
a line says so. That of object stores is apart, benchmarks/stores.py: it needs the server of the tests.
"""

from benchmarks import build, crops, drawing, evaluating, growth, loading, mixing, storage, streaming
from benchmarks.measuring import command

BENCHMARKS = {
    "build": build.tables,
    "loading": loading.tables,
    "streaming": streaming.tables,
    "crops": crops.tables,
    "evaluating": evaluating.tables,
    "drawing": drawing.tables,
    "storage": storage.tables,
    "mixing": mixing.tables,
    "growth": growth.tables,
}

if __name__ == "__main__":
    command(__doc__, BENCHMARKS)
