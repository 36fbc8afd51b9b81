"""Google Cloud Storage, as far as its emulator on loopback goes: the store's other implementation."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from support.raw_tree import RawTreeWriter

from processing.build.command import build
from processing.runtime import store
from processing.runtime.paths import place
from processing.verify.command import verify

pytestmark = pytest.mark.slow

# gcsfs reads it when it is imported, and would ask over gRPC what kind of bucket it is; nobody answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
gcsfs = pytest.importorskip("gcsfs", reason="gs:// needs gcsfs (the extra `gs`)")
server = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server of this test's own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    emulator = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    emulator.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    for protocol in ("gs", "gcs"):
        monkeypatch.setitem(fsspec.config.conf, protocol, {"token": "anon"})
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "bucket"
    gcsfs.GCSFileSystem.clear_instance_cache()
    emulator.stop()


def test_a_file_has_its_name_when_it_is_whole(bucket: str) -> None:
    folder = place(f"gs://{bucket}/out")
    data = bytes(range(256)) * 2**17  # 32 MiB, several parts
    for keep in (False, True):
        file = store.NewFile(folder / "file")
        for start in range(0, len(data), 2**20):
            file.write(data[start : start + 2**20])
        assert store.files_below(folder) == {}
        if keep:
            file.commit()
        file.discard()
    assert (folder / "file").read_bytes() == data
    assert store.state_of(folder / "file").tag
    store.remove_tree(folder)
    assert store.files_below(folder) == {}


def test_a_build_is_the_same_as_on_this_machine(bucket: str, tmp_path: Path) -> None:
    """Of few and small files: the emulator answers one request after the other."""
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).sound("kettle", ("c", "d"), ("x", "y"))
    tree.captions({f"bed/{stem}": "a bed" for stem in "abvw"})
    store.write_whole(place(f"gs://{bucket}/raw.zip"), Path(tree.zip(tmp_path / "raw.zip")).read_bytes())
    out = place(f"gs://{bucket}/out")
    build(str(tmp_path / "raw.zip"), tmp_path / "out", workers=1)
    for _ in range(2):  # the second time nothing is written but the card
        build(f"gs://{bucket}/raw.zip", out, workers=1)
    names = [name for name in store.files_below(tmp_path / "out") if not name.startswith(".build/")]
    assert [name for name in store.files_below(out) if not name.startswith(".build/")] == names
    assert store.read_all(out, names) == store.read_all(tmp_path / "out", names)
    assert verify(str(out), workers=1) == []
