"""Runs the benchmarks, prints the tables of README.md and docs/, and writes them as JSON.

    python -m benchmarks --raw RAW [--captions DIR] [--json FILE] [--quick] [--only NAME ...]

Some 45 minutes on two cores, and 40 GB of disk with pictures of 110 KB; `--quick` is a smoke test. Each has a
command of its own, such as `python -m benchmarks.streaming`. What is missing (torch, a peer) is left out, and
a line says so. That of object stores is apart, benchmarks/stores.py: it needs the server of the tests.
"""

# The processes that a build starts import this file as well, and must not pay for all that is imported here.
if __name__ == "__main__":
    from benchmarks import build, crops, drawing, evaluating, growth, loading, storage, streaming
    from benchmarks.measuring import command

    modules = (build, loading, streaming, crops, evaluating, drawing, storage, growth)
    command(__doc__, {module.__name__.rpartition(".")[2]: module.tables for module in modules})
