"""Releases that come in another shape than a zip or a folder, or from a server that will not give them."""

import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import PROJECT
from support.raw_tree import TOP, RawTreeWriter, encoded

from ImageNet3D import Finding, RawTree, ReleaseError, read_pictures, shown, survey
from processing.__main__ import main


def message(path: object) -> str:
    """Why a path is no release, in one line."""
    with pytest.raises(ReleaseError) as caught:
        RawTree(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pictures(path: object) -> tuple[list[str], list[Finding]]:
    found = survey(RawTree(str(path)))
    findings = list(found.findings)
    read = read_pictures(found.release, "classification", found.entries["train"], findings)
    return [picture.entry.image_id for picture in read], findings


def a_tree() -> RawTreeWriter:
    return RawTreeWriter().sound("bed", ("a", "b"), ())


class TestZips:
    def test_a_member_with_a_nul_is_not_read_by_the_beginning_of_its_name(self, tmp_path: Path) -> None:
        tree = a_tree()
        del tree.files["images/bed/a.JPEG"]
        raw = Path(tree.zip(tmp_path / "raw.zip"))
        with zipfile.ZipFile(raw, "a") as archive:
            archive.writestr(f"{TOP}images/bed/a.JPEG@evil", encoded())
        data = raw.read_bytes()
        assert data.count(b"a.JPEG@evil") == 2
        raw.write_bytes(data.replace(b"a.JPEG@evil", b"a.JPEG\0evil"))
        read, findings = pictures(raw)
        assert read == ["bed/b"]
        assert [f.reason for f in findings] == ["member_unsafe_path", "picture_missing"]

    def with_field(self, path: Path, name: bytes, right: bool = True) -> Path:
        """A zip whose picture a has its name in a Unicode Path field alone."""
        tree = a_tree()
        picture = tree.files.pop("images/bed/a.JPEG")
        raw = Path(tree.zip(path))
        header = f"{TOP}images/bed/x.JPEG"
        checksum = zlib.crc32(header.encode()) + (not right)
        info = zipfile.ZipInfo(header)
        info.extra = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, checksum) + name
        with zipfile.ZipFile(raw, "a") as archive:
            archive.writestr(info, picture)
        return raw

    def test_a_unicode_path_is_read_with_every_python(self, tmp_path: Path) -> None:
        raw = self.with_field(tmp_path / "raw.zip", f"{TOP}images/bed/a.JPEG".encode())
        assert sorted(pictures(raw)[0]) == ["bed/a", "bed/b"]

    def test_a_unicode_path_of_another_name_is_not_taken(self, tmp_path: Path) -> None:
        raw = self.with_field(tmp_path / "raw.zip", f"{TOP}images/bed/a.JPEG".encode(), right=False)
        assert pictures(raw)[0] == ["bed/b"]

    def test_a_unicode_path_cannot_climb_out(self, tmp_path: Path) -> None:
        read, findings = pictures(
            self.with_field(tmp_path / "raw.zip", f"{TOP}../images/bed/a.JPEG".encode())
        )
        assert read == ["bed/b"]
        assert findings[0].reason == "member_unsafe_path"

    def test_a_damaged_unicode_path_is_a_damaged_zip(self, tmp_path: Path) -> None:
        assert "not a whole zip" in message(self.with_field(tmp_path / "raw.zip", b"\xff\xfe"))

    def test_the_last_of_several_parts(self, tmp_path: Path) -> None:
        raw = Path(a_tree().zip(tmp_path / "raw.zip"))
        data = bytearray(raw.read_bytes())
        end = data.rfind(b"PK\5\6")
        data[end + 4 : end + 8] = struct.pack("<HH", 2, 1)
        raw.write_bytes(data)
        assert "one of several parts of a zip; join them first" in message(raw)

    def test_the_first_of_several_parts(self, tmp_path: Path) -> None:
        part = tmp_path / "raw.z01"
        part.write_bytes(b"PK\7\x08" + Path(a_tree().zip(tmp_path / "raw.zip")).read_bytes()[:500])
        assert "one of several parts of a zip; join them first" in message(part)

    def test_backslashes(self, tmp_path: Path) -> None:
        raw = Path(a_tree().zip(tmp_path / "raw.zip"))
        names = [name.encode() for name in zipfile.ZipFile(raw).namelist()]
        data = raw.read_bytes()
        for name in names:
            data = data.replace(name, name.replace(b"/", b"\\"))
        raw.write_bytes(data)
        assert "made with backslashes between folders" in message(raw)
        assert "unpack it and give the folder" in message(raw)

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_tar_archives(self, mode: str, tmp_path: Path) -> None:
        a_tree().folder(tmp_path / "tree")
        with tarfile.open(tmp_path / "raw.tar", mode) as archive:
            archive.add(tmp_path / "tree", "imagenet3d_v1")
        assert "not a zip; unpack it and give the folder" in message(tmp_path / "raw.tar")


class TestFolders:
    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        a_tree().folder(tmp_path / "tree")
        assert len(pictures("~/tree")[0]) == 2

    def test_a_name_that_is_no_utf_8_is_refused_at_the_start(self, tmp_path: Path) -> None:
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
        a_tree().folder(Path(path))
        text = message(path)
        assert "is no UTF-8" in text
        assert text.isascii()

    def test_names_inside_that_are_no_utf_8_are_left_out(self, tmp_path: Path) -> None:
        raw = a_tree().folder(tmp_path)
        odd = os.fsencode(tmp_path / TOP) + b"/images/bed/caf\xe9.JPEG"
        Path(os.fsdecode(odd)).write_bytes(encoded())
        found = survey(RawTree(raw))
        assert [entry.reason for entry in found.left_out] == ["picture_unlisted"]
        assert len(pictures(raw)[0]) == 2

    def test_any_depth(self, tmp_path: Path) -> None:
        """Deeper than Python may recurse, and than a path may be long."""
        raw = a_tree().folder(tmp_path)
        here = os.open(tmp_path / TOP / "images", os.O_RDONLY)
        try:
            for _ in range(2500):
                os.mkdir("d", dir_fd=here)
                deeper = os.open("d", os.O_RDONLY, dir_fd=here)
                os.close(here)
                here = deeper
        finally:
            os.close(here)
        try:
            assert len(pictures(raw)[0]) == 2
        finally:  # shutil would recurse
            subprocess.run(["rm", "-rf", str(tmp_path / TOP)], check=True)

    def test_glob_characters(self, tmp_path: Path) -> None:
        for name in ("a[1]", "b*", "c?", "d{x,y}"):
            assert len(pictures(a_tree().folder(tmp_path / name))[0]) == 2
            assert len(pictures(a_tree().zip(tmp_path / f"{name}.zip"))[0]) == 2

    def test_which_folder_is_taken_is_said(self, tmp_path: Path) -> None:
        raw = a_tree().folder(tmp_path)
        assert RawTree(raw).taken == str(tmp_path / TOP.rstrip("/"))
        assert (
            RawTree(a_tree().zip(tmp_path / "raw.zip")).taken == f"{tmp_path / 'raw.zip'}: {TOP} in the zip"
        )

    def test_a_build_prints_which_folder_of_a_zip_it_took(self, tmp_path: Path) -> None:
        raw = a_tree().zip(tmp_path / "raw.zip")
        words = ["build", raw, str(tmp_path / "out"), "--config", "classification", "--workers", "1"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0
        assert f"read from {raw}: {TOP} in the zip" in result.output


class _Refuses(BaseHTTPRequestHandler):
    """Answers with one status; 200 is a whole file whatever range is asked for."""

    def do_GET(self) -> None:
        server = self.server
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(server.content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@contextmanager
def refusing(status: int, content: bytes = b"") -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    server.status, server.content = status, content
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/raw.zip"
    finally:
        server.shutdown()
        server.server_close()


class TestServers:
    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (401, "asks who you are (HTTP 401). Check the credentials"),
            (403, "refuses you (HTTP 403). Check the credentials"),
            (404, "has no such file (HTTP 404). Check the address"),
            (429, "has had too many requests (HTTP 429). Wait a few minutes"),
            (500, "failed (HTTP 500). The server is out of order; wait a while"),
            (503, "failed (HTTP 503). The server is out of order; wait a while"),
        ],
    )
    def test_what_it_answers_is_said(self, status: int, text: str) -> None:
        with refusing(status) as url:
            assert message(url) == f"{url}: the server {text}" + (
                ", or ask for a new address if it is a signed one" if status in (401, 403) else ""
            )

    def test_nobody_there(self) -> None:
        with refusing(200) as url:
            pass
        text = message(url)
        assert "cannot be read" in text
        assert "Check the address, the connection" in text

    def test_no_byte_ranges(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed", tuple("abcdefghij"), ())
        tree.files["CAD/bed/02.off"] = os.urandom(2**20)  # larger than what is asked for first
        with refusing(200, Path(tree.zip(tmp_path / "raw.zip")).read_bytes()) as url:
            assert "whole files where ranges are asked for; download it first" in message(url)


def test_what_came_from_outside_is_shown_escaped() -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\r\n\u202e\ud800\x9b" + "x" * 100
    text = shown(hostile)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 200


def test_run_as_a_program_it_says_what_to_do() -> None:
    done = subprocess.run([sys.executable, str(PROJECT / "ImageNet3D.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "download_and_prepare" in done.stdout
    assert "python -m processing --help" in done.stdout
