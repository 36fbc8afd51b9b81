"""Requests, bytes and time of reading a raw release from an S3 server on loopback, with and without latency.

    python benchmarks/stores.py RAW

RAW is a zip of the release. Needs the extra `test`: the server is moto's, behind the counter of the tests. It
takes some milliseconds of processor a request itself, so compare the two latencies and not the times alone.
"""

import sys
import time
import zipfile
from pathlib import Path

import click
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.object_store import ObjectStore, serve

import ImageNet3D
from ImageNet3D import RawTree

GROUP = 100  # pictures that are fetched together, as of a row group
LATENCY = 0.03  # seconds


@click.command()
@click.argument("raw", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(raw: Path) -> None:
    """Put RAW on the server, zipped and unpacked, and read all its pictures in their order."""
    with zipfile.ZipFile(raw) as archive, serve() as store:
        bucket = store.bucket()
        store.fs.put_file(str(raw), f"{bucket}/raw.zip")
        members = [info for info in archive.infolist() if not info.is_dir()]
        store.fs.pipe({f"{bucket}/tree/{info.filename}": archive.read(info) for info in members})
        rows = []
        for kind in ("raw.zip", "tree"):
            sizes = {i.filename: i.compress_size if kind == "raw.zip" else i.file_size for i in members}
            rows += [_read(store, f"s3://{bucket}/{kind}", sizes, latency) for latency in (0.0, LATENCY)]
    head = ("", "latency, s", "requests to open", "requests/picture", "bytes/needed", "ms/picture")
    click.echo(tabulate(rows, head, floatfmt=("", ".2f", ".0f", ".2f", ".3f", ".1f")))


def _read(store: ObjectStore, url: str, sizes: dict[str, int], latency: float) -> tuple:
    """A row of the table.

    Args:
        sizes: member -> bytes, as they are stored.
    """
    store.latency = latency
    store.requests.clear()
    found = ImageNet3D.survey(RawTree(url))
    opening = len(store.requests)
    store.requests.clear()
    start = time.perf_counter()
    pictures = []
    for entries in found.entries.values():
        for at in range(0, len(entries), GROUP):
            group = entries[at : at + GROUP]
            near = found.release.fetched(group)
            pictures += ImageNet3D.read_pictures(near, "classification", group, [])
    seconds = time.perf_counter() - start
    names = {file for p in pictures for file in (p.entry.picture_file, p.entry.annotation_file)}
    needed = sum(size for name, size in sizes.items() if name.partition("/")[2] in names or name in names)
    sent, count = sum(request.sent for request in store.requests), len(pictures)
    kind = url.rsplit("/", 1)[-1]
    return kind, latency, opening, len(store.requests) / count, sent / needed, 1000 * seconds / count


if __name__ == "__main__":
    main()
