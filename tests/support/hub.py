"""A folder served on loopback as a dataset repository of the Hugging Face Hub.

Clients see what the real Hub shows them: information, trees, files with byte ranges, and its error codes.
A test therefore runs the very `load_dataset("ccvl/ImageNet3D", ...)` that a user types:

    with serve(folder) as hub:
        subprocess.run([python, "-c", code], env=hub.environment(tmp_path))
        assert hub.fetched("pose/train-00000-of-00001.parquet")[0].range

A revision is a snapshot: as with a commit, files added after `serve` began are not in it. The folder is only
read. Which requests there are was found by watching huggingface_hub 2.4 under datasets 3.6 and 5.2.
"""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from huggingface_hub import metadata_load
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "hf_loopback"  # the one token that passes the gate, unless the test names another

# Every commit has the same date, so that two runs answer alike.
COMMIT_DATE = "2024-06-13T00:00:00.000Z"

# Past this size the Hub keeps no file in git, text or not.
LARGEST_GIT_FILE = 10 * 1024 * 1024


class HubError(Exception):
    """An answer by which the Hub refuses; clients choose their exception by its code."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The refusal over HTTP: in the headers, since a HEAD has no body, and in the body as well."""
        headers = {"X-Error-Code": self.code, "X-Error-Message": self.message, **self.headers}
        return JSONResponse({"error": self.message}, self.status, headers)


@dataclass(frozen=True)
class Blob:
    """The content of one file, with the ids git and LFS give it."""

    location: Path  # on this machine
    size: int
    oid: str  # of the git blob: the content, or the LFS pointer that stands for it
    sha256: str | None  # of the content, if LFS keeps it
    pointer_size: int = 0  # of the LFS pointer, in bytes

    @classmethod
    def read(cls, location: Path) -> "Blob":
        """Hash a file, deciding like the Hub whether git or LFS keeps it."""
        size = location.stat().st_size
        with location.open("rb") as file:
            # A zero byte near the start is git's own sign of a binary file.
            if size <= LARGEST_GIT_FILE and b"\0" not in file.read(8000):
                return cls(location, size, git_blob_id(location.read_bytes()), None)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls.in_lfs(location, sha256, size)

    @classmethod
    def in_lfs(cls, location: Path, sha256: str, size: int) -> "Blob":
        """A file that LFS keeps; git has the pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return cls(location, size, git_blob_id(pointer), sha256, len(pointer))

    @property
    def etag(self) -> str:
        """What names the content in HTTP."""
        return self.sha256 or self.oid


def git_blob_id(content: bytes) -> str:
    """The id git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Snapshot:
    """One commit of the repository: its files, by path, and the folders they imply."""

    def __init__(self, files: Mapping[str, Blob]):
        self.files = dict(sorted(files.items()))
        self.folders = sorted(
            {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        )
        self.sha = self.digest("")

    @classmethod
    def read(cls, folder: Path) -> "Snapshot":
        """Take in a folder, without hidden folders, and without links: those may lead outside."""
        files = {}
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for location in (Path(parent, name) for name in names):
                if location.is_file() and not location.is_symlink():
                    files[location.relative_to(folder).as_posix()] = Blob.read(location)
        return cls(files)

    def digest(self, prefix: str) -> str:
        """Forty hexadecimal digits that stand for the files whose path has this prefix."""
        lines = (f"{path} {blob.oid}\n" for path, blob in self.files.items() if path.startswith(prefix))
        return hashlib.sha1("".join(lines).encode()).hexdigest()

    def file(self, path: str) -> Blob:
        """The file at a path; only listed paths exist, so none can lead out of the folder."""
        if path not in self.files:
            raise HubError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": self.sha})
        return self.files[path]

    def below(self, folder: str, recursive: bool) -> Iterator[str]:
        """Paths of the folders and files in a folder ("" is the root); of a file, the file itself."""
        if folder in self.files:
            yield folder
            return
        if folder and folder not in self.folders:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {self.sha}")
        prefix = f"{folder}/" if folder else ""
        for path in (*self.folders, *self.files):
            if path.startswith(prefix) and (recursive or "/" not in path.removeprefix(prefix)):
                yield path

    def entry(self, path: str, expand: bool) -> dict[str, Any]:
        """How the tree and paths-info answers describe a file or a folder."""
        if path in self.files:
            blob = self.files[path]
            entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
            if blob.sha256:
                entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
        else:
            entry = {"type": "directory", "oid": self.digest(f"{path}/"), "size": 0, "path": path}
        if expand:
            entry["lastCommit"] = {"id": self.sha, "title": "Add the dataset", "date": COMMIT_DATE}
        return entry


@dataclass
class Repository:
    """A dataset repository: snapshots by revision name, and who may read them."""

    repo_id: str
    revisions: dict[str, Snapshot]
    gate: str | None = None  # the token that passes; None is an open repository

    def check_exists(self, request: HttpRequest) -> None:
        """Refuse any other repository; like the Hub, without telling a visitor whether it exists."""
        if "{owner}/{name}".format(**request.path_params) == self.repo_id:
            return
        if bearer(request) is None:
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        raise HubError(404, "RepoNotFound", "Repository not found")

    def check_access(self, request: HttpRequest) -> None:
        """Refuse the content of a gated repository to those without access; what is known of it is public."""
        if self.gate is None or bearer(request) == self.gate:
            return
        restricted = f"Access to dataset {self.repo_id} is restricted"
        if bearer(request) is None:
            remedy = "You must have access to it and be authenticated to access it. Please log in."
            raise HubError(401, "GatedRepo", f"{restricted}. {remedy}")
        remedy = f"Visit https://huggingface.co/datasets/{self.repo_id} to ask for access."
        raise HubError(403, "GatedRepo", f"{restricted} and you are not in the authorized list. {remedy}")

    def known(self) -> dict[str, Snapshot]:
        """Snapshots by all that an address may call them."""
        return self.revisions | {snapshot.sha: snapshot for snapshot in self.revisions.values()}

    def kind(self, name: str) -> tuple[str, str]:
        """The list of references that a revision is in, and its whole name in git."""
        return ("branches", "refs/heads/main") if name == "main" else ("tags", f"refs/tags/{name}")

    def split(self, address: str) -> tuple[Snapshot, str]:
        """Take REVISION/PATH apart; a revision's name may have slashes itself, such as refs/pr/1."""
        known = self.known()
        for name in sorted(known, key=len, reverse=True):
            if address == name or address.startswith(f"{name}/"):
                return known[name], address.removeprefix(name).strip("/")
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {address.partition('/')[0]}")


def bearer(request: HttpRequest) -> str | None:
    """The token that a request carries."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def truth(value: str) -> bool:
    """Whether a parameter of a query or a form says yes."""
    return value.lower() in ("true", "1")


class InformationRoutes:
    """What is known of the repository as a whole."""

    prefix = "/api/datasets/{owner}/{name}"

    def __init__(self, repository: Repository):
        self.repository = repository

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [
            Route(self.prefix, self.information),
            Route(f"{self.prefix}/revision/{{address:path}}", self.information),
            Route(f"{self.prefix}/refs", self.references),
            Route(f"{self.prefix}/auth-check", self.access),
        ]

    async def information(self, request: HttpRequest) -> Response:
        """The repository at a revision: id, commit, files and the card's YAML."""
        self.repository.check_exists(request)
        snapshot, _ = self.repository.split(request.path_params.get("address", "main"))
        card = snapshot.files.get("README.md")
        with_blobs = truth(request.query_params.get("blobs", ""))
        return JSONResponse(
            {
                "id": self.repository.repo_id,
                "author": self.repository.repo_id.partition("/")[0],
                "sha": snapshot.sha,
                "createdAt": COMMIT_DATE,
                "lastModified": COMMIT_DATE,
                "private": False,
                "gated": "auto" if self.repository.gate else False,
                "disabled": False,
                "tags": [],
                "cardData": metadata_load(card.location) if card else None,
                "siblings": [self.sibling(path, blob, with_blobs) for path, blob in snapshot.files.items()],
            }
        )

    @staticmethod
    def sibling(path: str, blob: Blob, with_blob: bool) -> dict[str, Any]:
        """How the information names a file."""
        if not with_blob:
            return {"rfilename": path}
        lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
        return {"rfilename": path, "size": blob.size, "blobId": blob.oid} | (
            {"lfs": lfs} if blob.sha256 else {}
        )

    async def references(self, request: HttpRequest) -> Response:
        """Branches, tags and pull requests."""
        self.repository.check_exists(request)
        found = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for name, snapshot in self.repository.revisions.items():
            kind, ref = self.repository.kind(name)
            found[kind].append({"name": name, "ref": ref, "targetCommit": snapshot.sha})
        return JSONResponse(found)

    async def access(self, request: HttpRequest) -> Response:
        """Whether the token may read the files."""
        self.repository.check_exists(request)
        self.repository.check_access(request)
        return Response()


class TreeRoutes:
    """Which files and folders there are."""

    prefix = "/api/datasets/{owner}/{name}"

    def __init__(self, repository: Repository):
        self.repository = repository

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [
            Route(f"{self.prefix}/tree/{{address:path}}", self.tree),
            Route(f"{self.prefix}/paths-info/{{address:path}}", self.paths_info, methods=["POST"]),
        ]

    async def tree(self, request: HttpRequest) -> Response:
        """The entries of a folder, or of everything below it."""
        self.repository.check_exists(request)
        snapshot, folder = self.repository.split(request.path_params["address"])
        recursive, expand = (truth(request.query_params.get(name, "")) for name in ("recursive", "expand"))
        return JSONResponse([snapshot.entry(path, expand) for path in snapshot.below(folder, recursive)])

    async def paths_info(self, request: HttpRequest) -> Response:
        """The entries of the paths named in the form; those that do not exist are left out."""
        self.repository.check_exists(request)
        snapshot, _ = self.repository.split(request.path_params["address"])
        form = parse_qs((await request.body()).decode())
        expand = truth(form.get("expand", [""])[0])
        paths = [path.strip("/") for path in form.get("paths", [])]
        known = {*snapshot.files, *snapshot.folders}
        return JSONResponse([snapshot.entry(path, expand) for path in paths if path in known])


class FileRoutes:
    """The content of the files."""

    def __init__(self, repository: Repository):
        self.repository = repository

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [Route("/datasets/{owner}/{name}/resolve/{address:path}", self.resolve)]

    async def resolve(self, request: HttpRequest) -> Response:
        """A file, or the byte range asked of it."""
        self.repository.check_exists(request)
        snapshot, path = self.repository.split(request.path_params["address"])
        if path != "README.md":  # the card of a gated repository is public
            self.repository.check_access(request)
        blob = snapshot.file(path)
        headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": snapshot.sha}
        if blob.sha256:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(blob.size)}
        return FileResponse(blob.location, headers=headers, media_type="application/octet-stream")


@dataclass
class Request:
    """One request as the server saw it."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0  # bytes of the answer's body handed to the connection so far


class RequestRecord:
    """Writes every request down before its answer leaves, so that a test finds all that its client caused."""

    def __init__(self, app: ASGIApp, requests: list[Request]):
        self.app = app
        self.requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope["method"], scope["path"], Headers(scope=scope).get("range"))

        async def record(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                self.requests.append(request)
            elif request.method != "HEAD":
                request.sent += len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, record)


@dataclass
class Hub:
    """A running server: where it is, what it serves and what it was asked."""

    endpoint: str
    repository: Repository
    requests: list[Request] = field(default_factory=list)

    def sha(self, revision: str = "main") -> str:
        """The commit a revision names."""
        return self.repository.revisions[revision].sha

    def fetched(self, path: str) -> list[Request]:
        """The requests that got content of a file so far, at any revision."""
        base = f"/datasets/{self.repository.repo_id}/resolve/"
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.status in (200, 206)
            if request.path.startswith(base)
            and self.repository.split(request.path.removeprefix(base))[1] == path
        ]

    def environment(self, cache_dir: Path | str, token: str | None = None) -> dict[str, str]:
        """The whole environment of a client process: this one's, with this Hub and caches of its own."""
        ours = ("HF_", "HUGGING_FACE_", "HUGGINGFACE_")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(ours) and not name.lower().endswith("_proxy")
        }
        # What a client would ask of another host (datasets asks the viewer) comes here, and is not found.
        proxies = {
            "http_proxy": self.endpoint,
            "https_proxy": self.endpoint,
            "no_proxy": "127.0.0.1,localhost",
        }
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache_dir),
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }
        return inherited | proxies | settings | ({"HF_TOKEN": token} if token else {})


def application(hub: Hub) -> ASGIApp:
    """All routes of the Hub, recorded."""
    concerns = (InformationRoutes(hub.repository), TreeRoutes(hub.repository), FileRoutes(hub.repository))
    app = Starlette(
        routes=[route for concern in concerns for route in concern.routes()],
        exception_handlers={HubError: lambda request, error: error.response()},
    )
    return RequestRecord(app, hub.requests)


@contextmanager
def serve(
    folder: Path | str | None,
    repo_id: str = "ccvl/ImageNet3D",
    *,
    revisions: Mapping[str, Path | str] | None = None,
    gated: bool = False,
    token: str = TOKEN,
) -> Iterator[Hub]:
    """Serve a folder as `main` of a dataset repository, and further folders as further revisions.

    `folder` may be None when `revisions` names main itself. With `gated`, only `token` gets the files.
    """
    folders = ({} if folder is None else {"main": folder}) | dict(revisions or {})
    snapshots = {name: Snapshot.read(Path(location)) for name, location in folders.items()}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        hub = Hub(endpoint, Repository(repo_id, snapshots, token if gated else None))
        with running(application(hub), listener):
            yield hub


@contextmanager
def running(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """Answer on a socket from another thread, while the block runs."""
    config = uvicorn.Config(app, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the loopback Hub did not start; its log above says why")
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
