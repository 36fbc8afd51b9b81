"""Serves the tool on this machine, until it is interrupted, or reports what was done with it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path

from ImageNet3D import ReleaseError
from processing.annotate.queue import Queue
from processing.annotate.readings import Readings
from processing.annotate.report import Report, report

LOOPBACK = "127.0.0.1"
WHAT_TO_INSTALL = 'annotate needs starlette and uvicorn: pip install -e ".[annotate]" in a clone'


def report_on(source: str, corrections: str) -> Report:
    """What was done, and how far people agree.

    Args:
        source: raw release or built folder.
        corrections: the file that the tool wrote.

    Raises:
        ReleaseError: if the source is neither, the file is missing or has lines that are no corrections.
    """
    if not Path(corrections).is_file():
        raise ReleaseError(f"{corrections}: no such file of corrections; name the one that was written")
    return report(Queue(source), Readings(corrections))


def annotate(
    source: str,
    corrections: str,
    *,
    review: bool = False,
    named: str | None = None,
    host: str = LOOPBACK,
    port: int = 0,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the tool until it is interrupted.

    Args:
        source: raw release or built folder.
        corrections: the file that saves go to; made by the first.
        review: begin with the review of objects that have two readings.
        named: a file that names objects, one a line.
        host: the address to listen at; this machine alone by default.
        port: any that is free where 0.
        tell: gets the address to open.

    Raises:
        ReleaseError: if the source is neither, or a file has lines that cannot be used.
        ImportError: if the extra `annotate` is not installed.
        OSError: if the address cannot be had, or there can be no such file.
    """
    if not Path(corrections).absolute().parent.is_dir():
        raise NotADirectoryError(
            f"{corrections}: there is no such folder on this machine; make it, or name another file"
        )
    try:
        import uvicorn

        from processing.annotate.server import Tool, new_token
    except ImportError as error:
        raise ImportError(WHAT_TO_INSTALL) from error
    readings = Readings(corrections)
    queue = Queue(source, named)
    token = new_token()
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise OSError(f"{host}, port {port}: {error.strerror}; name another --host or --port") from error
        listening.listen()  # before the address is told: whoever opens it at once waits a little
        port = listening.getsockname()[1]
        app = Tool(queue, readings, token, review).app(_names(host, port))
        at = f"[{host}]" if ":" in host else host
        tell(f"http://{at}:{port}/?token={token}")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def _names(host: str, port: int) -> frozenset[str] | None:
    """What browsers call this server; None where it listens to the world, which may call it anything."""
    try:
        if not ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:
        if host != "localhost":
            return None
    return frozenset(f"{name}:{port}" for name in (LOOPBACK, "localhost", "[::1]", host))
