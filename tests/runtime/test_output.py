"""What a command may write where: never over what is not its own, and through pipes and links."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from processing.runtime.output import OutputError, check_output, write_output

MARK = b"<!-- mark -->"
DATA = b"<html>" + MARK + b"</html>"


def test_an_earlier_output_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert write_output(path, DATA, MARK) is False
    write_output(path, DATA + b"again", MARK)
    assert path.read_bytes() == DATA + b"again"
    (tmp_path / "empty").touch()
    write_output(tmp_path / "empty", b" " * 10**6 + MARK, MARK)
    write_output(tmp_path / "empty", DATA, MARK)  # known by a mark at its end, too
    assert (tmp_path / "empty").read_bytes() == DATA


@pytest.mark.parametrize("content", [b"PK\3\4 the gated zip", b"{}", b"x" * 10**6])
def test_what_is_not_an_earlier_output_stays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    for attempt in (lambda: check_output(path, MARK), lambda: write_output(path, DATA, MARK)):
        with pytest.raises(OutputError, match="mine exists and is no earlier output of this command"):
            attempt()
    assert path.read_bytes() == content
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path, MARK)


def test_a_link_stays_and_the_rule_holds_behind_it(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "page.html", tmp_path / "link.html"
    target.parent.mkdir()
    link.symlink_to(target)
    write_output(link, DATA, MARK)
    write_output(link, DATA, MARK)
    assert link.is_symlink()
    assert target.read_bytes() == DATA
    target.write_bytes(b"mine")
    with pytest.raises(OutputError):
        write_output(link, DATA, MARK)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    assert write_output(pipe, DATA, MARK) is True
    reader.join(10)
    assert received == [DATA]
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_standard_output_is_written_through(tmp_path: Path) -> None:
    """Also behind what a file already holds."""
    log = tmp_path / "log"
    log.write_bytes(b"before ")
    code = "from processing.runtime.output import write_output\n"
    code += "".join(f"write_output({name!r}, {DATA!r}, {MARK!r})\n" for name in ("/dev/stdout", "/dev/fd/1"))
    with log.open("ab") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True, timeout=60)
    assert log.read_bytes() == b"before " + 2 * DATA
    assert Path("/dev/stdout").is_symlink()


def test_a_device_is_written_through() -> None:
    assert write_output("/dev/null", DATA, MARK) is True
    assert Path("/dev/null").is_char_device()
