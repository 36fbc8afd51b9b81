"""All that a folder holds, here or on a server."""

from pathlib import Path

from support.object_store import ObjectStore

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """All that a command publishes, without its own books."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(paths.items()) if not name.startswith(".")}


def files_on(s3: ObjectStore, folder: str) -> Files:
    """The same, on the server."""
    names = s3.fs.find(folder)
    found = {name.removeprefix(f"{folder}/"): s3.fs.cat_file(name) for name in names}
    return {name: data for name, data in found.items() if not name.startswith(".")}
