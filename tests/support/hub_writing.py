"""The loopback Hub of `hub.py`, taking commits as well: what it received is what it serves.

    with serve_writable(tmp_path) as hub:
        publish(out, "ccvl/ImageNet3D", token=TOKEN, endpoint=hub.endpoint)
        subprocess.run([python, "-c", code], env=hub.environment(cache, token=TOKEN))

A `Fault` makes it fail where a test wants it to. Which requests there are was found by watching
huggingface_hub 2.4 (and 0.30, which asks the same and a little more) without Xet, whose storage has a
protocol of its own: contents go through Git LFS, in one part or in several.
"""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from support.hub import (
    LARGEST_GIT_FILE,
    TOKEN,
    Blob,
    FileRoutes,
    Hub,
    HubError,
    InformationRoutes,
    Repository,
    RequestRecord,
    Snapshot,
    TreeRoutes,
    bearer,
    git_blob_id,
    running,
    truth,
)

READER = "hf_reader"  # a token that may read and open pull requests
TOKENS = {TOKEN: "maintainer", READER: "visitor"}

# What the Hub's .gitattributes for datasets give to LFS, as far as tests send it.
LFS_ENDINGS = (".parquet", ".zip", ".png", ".jpg")


class Commit(Snapshot):
    """A snapshot with a history, so that going back to old files is a new commit."""

    def __init__(self, files: Mapping[str, Blob], parent: "Commit | None", title: str):
        super().__init__(files)
        self.parent = parent
        self.title = title
        history = f"{parent.sha if parent else ''} {title} {self.sha}"
        self.sha = hashlib.sha1(history.encode()).hexdigest()


@dataclass
class WritableRepository(Repository):
    """A repository that is made, written to and tagged over HTTP; its contents are kept in a folder."""

    store: Path = field(kw_only=True)
    exists: bool = False
    tags: set[str] = field(default_factory=set)
    commits: list[Commit] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)  # what its .gitignore names

    def create(self) -> None:
        """Begin as the Hub does: with a commit of its own."""
        self.exists = True
        self.revisions["main"] = self.add_commit(
            {".gitattributes": self.keep(b"*.parquet lfs\n")}, None, "initial"
        )

    def commit_file(self, path: str, content: bytes) -> Commit:
        """A commit to main by somebody else."""
        parent = self.revisions["main"]
        files = {**parent.files, path: Blob.read(self.keep(content).location)}
        self.revisions["main"] = self.add_commit(files, parent, f"Add {path}")
        return self.revisions["main"]

    def add_commit(self, files: Mapping[str, Blob], parent: Commit | None, title: str) -> Commit:
        """A commit that no branch names yet."""
        self.commits.append(Commit(files, parent, title))
        return self.commits[-1]

    def keep(self, content: bytes) -> Blob:
        """A file for git."""
        location = self.store / git_blob_id(content)
        location.write_bytes(content)
        return Blob(location, len(content), location.name, None)

    def kept(self, sha256: str) -> Path | None:
        """Where LFS has a content, if it does."""
        location = self.store / sha256
        return location if location.exists() else None

    def known(self) -> dict[str, Snapshot]:
        return {**{commit.sha: commit for commit in self.commits}, **self.revisions}

    def kind(self, name: str) -> tuple[str, str]:
        if name.startswith("refs/pr/"):
            return "pullRequests", name
        return ("tags", f"refs/tags/{name}") if name in self.tags else ("branches", f"refs/heads/{name}")

    def check_exists(self, request: HttpRequest) -> None:
        if not self.exists:
            request.path_params["name"] = ""
        super().check_exists(request)

    def check_may_write(self, request: HttpRequest) -> None:
        """Refuse all but the maintainer; anybody whom the Hub knows may open a pull request."""
        who = caller(request)
        if "owner" in request.path_params:
            self.check_exists(request)
        if who != "maintainer" and not truth(request.query_params.get("create_pr", "")):
            raise HubError(403, "", "You don't have the required permissions to perform this action")

    def branch(self, name: str) -> Commit:
        """The head of what may be committed to."""
        if name not in self.revisions or name in self.tags:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
        return self.revisions[name]


def caller(request: HttpRequest) -> str:
    """Whose token the request carries."""
    token = bearer(request)
    if token not in TOKENS:
        raise HubError(401, "", "Invalid credentials in Authorization header")
    return TOKENS[token]


class SettingRoutes:
    """Repositories, branches, tags and settings."""

    prefix = "/api/datasets/{owner}/{name}"

    def __init__(self, repository: WritableRepository):
        self.repository = repository

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [
            Route("/api/whoami-v2", self.whoami),
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route("/api/validate-yaml", self.validate, methods=["POST"]),
            Route(f"{self.prefix}/settings", self.settings, methods=["PUT"]),
            Route(f"{self.prefix}/branch/{{branch:path}}", self.branch, methods=["POST"]),
            Route(f"{self.prefix}/tag/{{address:path}}", self.tag, methods=["POST"]),
        ]

    async def whoami(self, request: HttpRequest) -> Response:
        """Who the token is."""
        return JSONResponse({"type": "user", "name": caller(request), "orgs": []})

    async def create(self, request: HttpRequest) -> Response:
        """Make the repository; the server has one."""
        self.repository.check_may_write(request)
        asked = await request.json()
        repo_id = f"{asked['organization']}/{asked['name']}"
        if asked["type"] != "dataset" or repo_id != self.repository.repo_id:
            raise HubError(403, "", f"You don't have the rights to create {repo_id}")
        if self.repository.exists:
            raise HubError(409, "", "You already created this dataset repo")
        self.repository.create()
        return JSONResponse({"url": f"{request.base_url}datasets/{repo_id}", "name": repo_id})

    async def validate(self, request: HttpRequest) -> Response:
        """Accept every card."""
        return JSONResponse({"errors": [], "warnings": []})

    async def settings(self, request: HttpRequest) -> Response:
        """Change settings; a gate lets the maintainer pass."""
        self.repository.check_may_write(request)
        self.repository.settings |= await request.json()
        self.repository.gate = TOKEN if self.repository.settings.get("gated") else None
        return JSONResponse(self.repository.settings)

    async def branch(self, request: HttpRequest) -> Response:
        """Make a branch."""
        self.repository.check_may_write(request)
        start = (await request.json()).get("startingPoint", "main")
        return self.name(request.path_params["branch"], self.repository.split(start)[0])

    async def tag(self, request: HttpRequest) -> Response:
        """Tag a commit."""
        self.repository.check_may_write(request)
        name = (await request.json())["tag"]
        answer = self.name(name, self.repository.split(request.path_params["address"])[0])
        self.repository.tags.add(name)
        return answer

    def name(self, name: str, snapshot: Snapshot) -> Response:
        """Give a commit a new name."""
        if name in self.repository.revisions:
            raise HubError(409, "", f"Reference already exists: {name}")
        self.repository.revisions[name] = snapshot
        return Response(status_code=201)


class LfsRoutes:
    """Contents, before any commit names them."""

    def __init__(self, repository: WritableRepository, part_size: int | None):
        self.repository = repository
        self.part_size = part_size  # contents above it are sent in parts

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [
            Route("/api/datasets/{owner}/{name}/preupload/{address:path}", self.preupload, methods=["POST"]),
            Route("/datasets/{owner}/{name}.git/info/lfs/objects/batch", self.batch, methods=["POST"]),
            Route("/datasets/{owner}/{name}.git/info/lfs/objects/verify", self.verify, methods=["POST"]),
            Route("/storage/{oid}", self.whole, methods=["PUT"]),
            Route("/storage/{oid}/parts/{number:int}", self.part, methods=["PUT"]),
            Route("/storage/{oid}/complete", self.complete, methods=["POST"]),
        ]

    async def preupload(self, request: HttpRequest) -> Response:
        """Which files git keeps and which LFS, and what is at their paths now."""
        self.repository.check_may_write(request)
        files = self.repository.branch(request.path_params["address"]).files
        answers = []
        for file in (await request.json())["files"]:
            is_binary = b"\0" in base64.b64decode(file["sample"])
            lfs = file["path"].endswith(LFS_ENDINGS) or is_binary or file["size"] > LARGEST_GIT_FILE
            ignored = file["path"] in self.repository.ignored
            answer = {
                "path": file["path"],
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": ignored,
            }
            if file["path"] in files:
                answer["oid"] = files[file["path"]].etag
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def batch(self, request: HttpRequest) -> Response:
        """Where to send the contents; nowhere, those that are here."""
        caller(request)
        base = str(request.base_url).rstrip("/")
        verify = {"href": base + request.url.path.replace("/batch", "/verify"), "header": {}}
        objects = []
        for asked in (await request.json())["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if self.repository.kept(asked["oid"]) is None:
                answer["actions"] = {"upload": self.upload_action(base, **asked), "verify": verify}
            objects.append(answer)
        return JSONResponse(
            {"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json"
        )

    def upload_action(self, base: str, oid: str, size: int) -> dict[str, Any]:
        """Where one content goes."""
        href = f"{base}/storage/{oid}"
        if self.part_size is None or size <= self.part_size:
            return {"href": href, "header": {}}
        parts = range(1, -(-size // self.part_size) + 1)
        header = {str(number): f"{href}/parts/{number}" for number in parts}
        return {"href": f"{href}/complete", "header": {"chunk_size": str(self.part_size), **header}}

    async def whole(self, request: HttpRequest) -> Response:
        """A content in one part."""
        self.accept(request.path_params["oid"], await request.body())
        return Response()

    async def part(self, request: HttpRequest) -> Response:
        """One part of a content."""
        content = await request.body()
        self.part_location(**request.path_params).write_bytes(content)
        return Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    async def complete(self, request: HttpRequest) -> Response:
        """Put the parts together."""
        oid = request.path_params["oid"]
        numbers = [part["partNumber"] for part in (await request.json())["parts"]]
        self.accept(oid, b"".join(self.part_location(oid, number).read_bytes() for number in numbers))
        return Response()

    async def verify(self, request: HttpRequest) -> Response:
        """Whether a content arrived."""
        asked = await request.json()
        location = self.repository.kept(asked["oid"])
        if location is None or location.stat().st_size != asked["size"]:
            raise HubError(404, "", "Object not found")
        return Response()

    def accept(self, oid: str, content: bytes) -> None:
        """Keep a content that is what it was announced to be."""
        if hashlib.sha256(content).hexdigest() != oid:
            raise HubError(400, "", "BadDigest")
        (self.repository.store / oid).write_bytes(content)

    def part_location(self, oid: str, number: int) -> Path:
        """Where a part waits."""
        return self.repository.store / f"{oid}.{number}"


class CommitRoutes:
    """Commits and the pull requests they open."""

    def __init__(self, repository: WritableRepository):
        self.repository = repository

    def routes(self) -> list[Route]:
        """The addresses answered here."""
        return [Route("/api/datasets/{owner}/{name}/commit/{address:path}", self.commit, methods=["POST"])]

    async def commit(self, request: HttpRequest) -> Response:
        """Make a commit of the operations, one a line, if the branch is where its author saw it."""
        self.repository.check_may_write(request)
        branch = request.path_params["address"]
        head = self.repository.branch(branch)
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        files = dict(head.files)
        for line in lines:
            self.apply(line["key"], line["value"], files)
        wants_pull_request = truth(request.query_params.get("create_pr", ""))
        if not wants_pull_request and header.get("parentCommit", head.sha) != head.sha:
            raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
        commit = self.repository.add_commit(files, head, header["summary"])
        page = f"{request.base_url}datasets/{self.repository.repo_id}"
        answer = {"success": True, "commitOid": commit.sha, "commitUrl": f"{page}/commit/{commit.sha}"}
        if wants_pull_request:
            number = 1 + sum(name.startswith("refs/pr/") for name in self.repository.revisions)
            branch = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{page}/discussions/{number}"
        self.repository.revisions[branch] = commit
        return JSONResponse(answer)

    def apply(self, key: str, value: Mapping[str, Any], files: dict[str, Blob]) -> None:
        """One operation on the files."""
        if key == "file":
            files[value["path"]] = self.repository.keep(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            location = self.repository.kept(value["oid"])
            if location is None:
                raise HubError(400, "", f"LFS pointer pointed to a file that does not exist: {value['path']}")
            files[value["path"]] = Blob.in_lfs(location, value["oid"], value["size"])
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
        elif key != "header":
            raise HubError(400, "", f"Unknown operation: {key}")


@dataclass
class Fault:
    """Something that goes wrong with the next requests of a kind.

    Attributes:
        method: of the requests.
        path: regular expression found in their path.
        times: how many of them.
        status: the answer; None drops the connection without one.
        message: of the answer.
        late: do what was asked before it goes wrong.
        meanwhile: what happens before the request is looked at; alone, it is all that happens.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    message: str = "Internal Error"
    late: bool = False
    meanwhile: Callable[[], object] | None = None


class Faults:
    """Lets requests go wrong."""

    def __init__(self, app: ASGIApp, faults: list[Fault]):
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self.next_fault(scope)
        if fault is None:
            return await self.app(scope, receive, send)
        if fault.meanwhile:
            fault.meanwhile()
            return await self.app(scope, receive, send)
        if fault.late:
            await self.app(scope, receive, into_the_void)
        if fault.status is None:
            return await drop(send)
        return await HubError(fault.status, "", fault.message).response()(scope, receive, send)

    def next_fault(self, scope: Scope) -> Fault | None:
        """The fault that is due, counted down."""
        for fault in self.faults:
            if fault.times and fault.method == scope["method"] and re.search(fault.path, scope["path"]):
                fault.times -= 1
                return fault
        return None


async def into_the_void(message: Message) -> None:
    """Send an answer to nobody."""


def drop(send: Send) -> Awaitable[None]:
    """Begin an answer that never comes: the server then closes the connection."""
    return send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


@dataclass
class WritableHub(Hub):
    """A running server that takes commits."""

    repository: WritableRepository
    faults: list[Fault] = field(default_factory=list)

    def asked(self, method: str, path: str) -> list[str]:
        """Paths of the requests of a kind so far, in their order."""
        return [r.path for r in self.requests if r.method == method and re.search(path, r.path)]

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files of a revision."""
        snapshot = self.repository.revisions[revision]
        return {path: blob.location.read_bytes() for path, blob in snapshot.files.items()}


@contextmanager
def serve_writable(
    store: Path, repo_id: str = "ccvl/ImageNet3D", *, exists: bool = True, part_size: int | None = None
) -> Iterator[WritableHub]:
    """Serve one repository, new or yet to be made, that keeps its contents in the folder `store`."""
    store.mkdir(parents=True, exist_ok=True)
    repository = WritableRepository(repo_id, {}, store=store)
    if exists:
        repository.create()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hub = WritableHub(f"http://127.0.0.1:{listener.getsockname()[1]}", repository)
        concerns = (
            SettingRoutes(repository),
            LfsRoutes(repository, part_size),
            CommitRoutes(repository),
            InformationRoutes(repository),
            TreeRoutes(repository),
            FileRoutes(repository),
        )
        app = Starlette(
            routes=[route for concern in concerns for route in concern.routes()],
            exception_handlers={HubError: lambda request, error: error.response()},
        )
        with running(RequestRecord(Faults(app, hub.faults), hub.requests), listener):
            yield hub
