"""A real S3 server on loopback, moto's: it counts requests, and fails, stalls or breaks off as a test wants.

    with serve() as store:
        bucket = store.bucket()
        store.latency = 0.03
        store.fail("reset", times=2, method="GET", key="raw.zip")
        build(f"s3://{bucket}/raw.zip", …)
        assert store.seen("GET", "raw.zip")

The clients find it by AWS_ENDPOINT_URL, which other processes inherit.
"""

import contextlib
import logging
import os
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import fsspec
import pytest
import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass
class Request:
    """A request as the server saw it; `sent` are the bytes of the answer's body."""

    method: str
    key: str  # "bucket/key"
    query: str
    range: str
    status: str = ""
    sent: int = 0


@dataclass
class Fault:
    """What befalls the next `times` requests, all where None, of a method whose key and query match.

    The kind is "slow down" (503), "reset" (the connection breaks off) or "cut" (it does amid the answer).
    """

    kind: str
    times: int | None
    method: str
    pattern: str
    after: int = 0  # requests that pass first

    def strikes(self, request: Request) -> bool:
        if self.times == 0 or request.method != self.method:
            return False
        if not re.search(self.pattern, f"{request.key}?{request.query}"):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class ObjectStore:
    """The server, seen from outside."""

    endpoint: str
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    latency: float = 0.0  # seconds, before each answer
    gathered: tuple[int, str] = (0, "")  # how many requests of a pattern, see `gather`
    waiting: int = 0  # requests of that pattern that are being held
    most_waiting: int = 0  # at any moment
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bucket(self) -> str:
        """A new bucket's name; what was counted and what was to fail is forgotten."""
        self.latency = 0.0
        self.gather(0)
        self.faults.clear()
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.fs.mkdir(name)
        self.requests.clear()
        return name

    def gather(self, count: int, key: str = "") -> None:
        """Hold requests whose key matches a pattern until so many have come, for half a minute at most."""
        self.gathered, self.most_waiting = (count, key), 0

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """For tests to look in and put things there; it remembers no listing."""
        return fsspec.filesystem("s3", use_listings_cache=False)

    def fail(
        self, kind: str = "slow down", *, times: int | None, method: str, key: str = "", after: int = 0
    ) -> Fault:
        """Let requests fail; the fault ends when its `times` is set to 0."""
        self.faults.append(Fault(kind, times, method, key, after))
        return self.faults[-1]

    def seen(self, method: str, key: str = "") -> list[Request]:
        """The requests of a method whose key and query match a pattern."""
        return [r for r in self.requests if r.method == method and re.search(key, f"{r.key}?{r.query}")]


class _Front:
    """WSGI: what stands before moto."""

    def __init__(self, application: Any, store: ObjectStore) -> None:
        self._application, self._store = application, store

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"].lstrip("/"),
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_RANGE", ""),
        )
        store = self._store
        with store.lock:
            store.requests.append(request)
            fault = next((fault for fault in store.faults if fault.strikes(request)), None)
        time.sleep(store.latency)
        self._wait_for_others(request)
        if fault and fault.kind != "cut":
            # The body is read, or what is left of it would be taken for the next request.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault and fault.kind == "reset":
            request.status = "reset"
            return self._broken_off(environ, [])
        if fault and fault.kind == "slow down":
            request.status = "503"
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [SLOW_DOWN]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            request.status = status[:3]
            return start_response(status, headers, *rest)

        body = b"".join(self._application(environ, start))
        request.sent = 0 if request.method == "HEAD" else len(body)
        return self._broken_off(environ, [body[: len(body) // 2]]) if fault else [body]

    def _wait_for_others(self, request: Request) -> None:
        store = self._store
        count, pattern = store.gathered
        if not count or not re.search(pattern, request.key):
            return
        with store.lock:
            store.waiting += 1
            store.most_waiting = max(store.waiting, store.most_waiting)
        end = time.monotonic() + 30
        while store.most_waiting < count and time.monotonic() < end:
            time.sleep(0.005)
        with store.lock:
            store.waiting -= 1

    @staticmethod
    def _broken_off(environ: dict[str, Any], parts: list[bytes]) -> Iterator[bytes]:
        yield from parts
        connection = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        raise ConnectionResetError


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as those of a real store do

    def log(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serve() -> Iterator[ObjectStore]:
    """A server on a port of its own, in threads of this process; the environment points to it."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = ObjectStore("")
    application = _Front(DomainDispatcherApplication(create_backend_app), store)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Handler)
    server.daemon_threads = True
    store.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    given = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": "loopback",
        "AWS_SECRET_ACCESS_KEY": "loopback",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with mock.patch.dict(os.environ, given):
            yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def quickly_given_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """botocore asks once and s3fs twice, and not five times each."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
