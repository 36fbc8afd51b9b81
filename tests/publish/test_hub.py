"""The loopback Hub against its real clients, and its answers byte by byte."""

import hashlib
import http.client
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from support import PROJECT
from support.hub import TOKEN, Hub, serve

pytestmark = pytest.mark.slow

REPO = "ccvl/ImageNet3D"
KNOWN = "pose/train-00001-of-00002-known.parquet"
LARGE = "large/train-00000-of-00001.parquet"
CATEGORIES = ["bed", "car", "chair"]
STATUSES = ["good", "partially", "barely", "bad"]

DATASETS3 = os.environ.get("IMAGENET3D_DATASETS3_PYTHON", PROJECT / ".venv-datasets3" / "bin" / "python")
both_versions = pytest.mark.parametrize(
    "python",
    [
        pytest.param(sys.executable, id="newest"),
        pytest.param(
            str(DATASETS3),
            id="datasets3",
            marks=pytest.mark.skipif(
                not Path(DATASETS3).exists(),
                reason="no interpreter with datasets 3.6: name one in IMAGENET3D_DATASETS3_PYTHON",
            ),
        ),
    ],
)

OBJECT_SCHEMA = [
    ("category", pa.int64()),
    ("bbox", pa.list_(pa.float64(), 4)),
    ("object_status", pa.int64()),
    ("dense", pa.bool_()),
]
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image_id", pa.string()),
        *OBJECT_SCHEMA,
        ("objects", pa.list_(pa.struct(OBJECT_SCHEMA))),
    ]
)


def class_label(names: Iterable[str]) -> dict[str, Any]:
    return {"class_label": {"names": {str(index): name for index, name in enumerate(names)}}}


def object_features() -> list[dict[str, Any]]:
    """The columns of an object, as YAML; a fixed-size list is a `sequence`, since datasets 3.6 forgets
    the length of a `list`.
    """
    return [
        {"name": "category", "dtype": class_label(CATEGORIES)},
        {"name": "bbox", "sequence": "float64", "length": 4},
        {"name": "object_status", "dtype": class_label(STATUSES)},
        {"name": "dense", "dtype": "bool"},
    ]


def features() -> list[dict[str, Any]]:
    """All columns, as YAML; made anew at each call, since datasets cannot read YAML with aliases."""
    return [
        {"name": "image", "dtype": "image"},
        {"name": "image_id", "dtype": "string"},
        *object_features(),
        {"name": "objects", "list": object_features()},
    ]


def jpeg(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, shade, shade)).save(content, "JPEG")
    return content.getvalue()


def make_rows(release: str, shard: int, count: int) -> list[dict[str, Any]]:
    """Rows with a null wherever the format admits one."""
    posed = {"category": 1, "bbox": [0.5, 1.0, 2.25, 3.0], "object_status": 3, "dense": True}
    bare = {"category": 2, "bbox": [0.0, 0.0, 1.0, 1.0], "object_status": None, "dense": None}
    return [
        {
            "image": {"bytes": jpeg(40 * shard + index), "path": f"{shard}_{index}.JPEG"},
            "image_id": f"{release}/{shard}_{index}",
            **(posed if index % 2 else bare | {"bbox": [1.0, 2.0, 3.0, 4.0]}),
            "objects": [posed, bare][:index],
        }
        for index in range(count)
    ]


def write_shard(path: Path, row_groups: Iterable[list[dict[str, Any]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compression": "none", "use_dictionary": ["image.bytes"], "dictionary_pagesize_limit": 1 << 28}
    with pq.ParquetWriter(path, SCHEMA, **options) as writer:
        for rows in row_groups:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))


def write_card(folder: Path, files: Mapping[str, tuple[str, int]]) -> None:
    """A card whose YAML declares the configs: their files, features and number of rows."""
    card = {
        "configs": [
            {"config_name": config, "data_files": [{"split": "train", "path": path}]}
            for config, (path, _) in files.items()
        ],
        "dataset_info": [
            {
                "config_name": config,
                "features": features(),
                "splits": [{"name": "train", "num_examples": count}],
            }
            for config, (_, count) in files.items()
        ],
    }
    front = yaml.safe_dump(card, sort_keys=False)  # the order of features is the order of columns
    (folder / "README.md").write_text(f"---\n{front}---\n# A small dataset\n", encoding="utf-8")


def make_repository(folder: Path, release: str) -> Path:
    """A dataset repository as `release` published it: two shards, the second of known categories, and a
    file of which a client needs a small part.
    """
    write_shard(folder / "pose/train-00000-of-00002-unknown.parquet", [make_rows(release, 0, 3)])
    write_shard(folder / KNOWN, [make_rows(release, 1, 3)])
    rows = make_rows(release, 2, 3)
    rows[0]["image"]["bytes"] += os.urandom(16 << 20)  # far more than a client reads ahead
    write_shard(folder / LARGE, [rows])
    files = {"pose": ("pose/train-*.parquet", 6), "known": ("pose/train-*-known.parquet", 3)}
    write_card(folder, files | {"large": ("large/train-*.parquet", 3)})
    return folder


def client(python: str, hub: Hub, cache: Path, code: str, token: str | None = None) -> Any:
    """Run code in a process of its own, with a Hub and a cache of its own; the JSON it prints last."""
    done = subprocess.run(
        [python, "-c", code],
        env=hub.environment(cache, token),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def get(
    hub: Hub, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Ask without any client's manners: the path goes over the wire as it stands."""
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=20)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


LOAD = """
import json
from datasets import load_dataset

SOURCE = "ccvl/ImageNet3D"

def rows(config, **options):
    dataset = load_dataset(SOURCE, config, split="train", **options)
    return [decoded(row, dataset.features["category"]) for row in dataset]

def decoded(row, label):
    image = [type(row["image"]).__name__, *row["image"].size]
    return row | {"image": image, "category": label.int2str(row["category"])}

def refusal(repo=SOURCE, **options):
    try:
        load_dataset(repo, "pose", **options)
    except Exception as error:
        return [type(error).__name__, str(error)]

# Read to the end: a process that ends amid a stream of Parquet may crash or hang in pyarrow's threads.
def one_column():
    return load_dataset(SOURCE, "large", split="train", streaming=True, columns=["image_id"])

print(json.dumps({
    "refused": {
        "visitor": refusal(token=False),
        "streaming": refusal(token=False, streaming=True),
        "stranger": refusal(token="hf_stranger"),
        "repository": refusal("ccvl/Nothing"),
        "revision": refusal(revision="v9"),
    },
    "whole": rows("pose"),
    "streamed": rows("pose", streaming=True),
    "known": [row["image_id"] for row in rows("known", streaming=True)],
    "pinned": [row["image_id"] for row in rows("pose", revision="v1.0.0")],
    "length": load_dataset(SOURCE, "pose", split="train").features["bbox"].length,
    "one_column": [row["image_id"] for row in one_column()],
}))
"""


@both_versions
def test_load_dataset(python: str, tmp_path: Path) -> None:
    """It gives the rows of every revision, explains what the Hub refuses, and streams parts of files."""
    latest = make_repository(tmp_path / "latest", "v1.1.0")
    pinned = make_repository(tmp_path / "pinned", "v1.0.0")
    with serve(latest, revisions={"v1.0.0": pinned}, gated=True) as hub:
        found = client(python, hub, tmp_path / "cache", LOAD, token=TOKEN)
        fetched = hub.fetched(LARGE)
    written = make_rows("v1.1.0", 0, 3) + make_rows("v1.1.0", 1, 3)
    decoded = [
        {**row, "image": ["JpegImageFile", 8, 6], "category": CATEGORIES[row["category"]]} for row in written
    ]
    assert found["whole"] == found["streamed"] == decoded
    assert found["known"] == [row["image_id"] for row in make_rows("v1.1.0", 1, 3)]
    assert found["pinned"] == [row["image_id"].replace("v1.1.0", "v1.0.0") for row in written]
    assert found["length"] == 4

    refused = found["refused"]
    assert {kind for kind, _ in refused.values()} == {"DatasetNotFoundError"}
    gated = f"Dataset '{REPO}' is a gated dataset on the Hub."
    assert refused["visitor"] == refused["streaming"]
    assert refused["visitor"][1] == f"{gated} You must be authenticated to access it."
    assert refused["stranger"][1].startswith(f"{gated} Visit the dataset page at")
    missing = "Dataset 'ccvl/Nothing' doesn't exist on the Hub or cannot be accessed."
    assert refused["repository"][1] == missing
    assert refused["revision"][1] == f"Revision 'v9' doesn't exist for dataset '{REPO}' on the Hub."

    assert found["one_column"] == [row["image_id"] for row in make_rows("v1.1.0", 2, 3)]
    assert fetched
    assert {request.status for request in fetched} == {206}
    assert all(request.range.startswith("bytes=") for request in fetched)
    assert sum(request.sent for request in fetched) < 1 << 20


INTERFACE = """
import json
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import GatedRepoError

repo = {"repo_id": "ccvl/ImageNet3D", "repo_type": "dataset"}
api = HfApi()
information = api.dataset_info(repo["repo_id"], files_metadata=True)
tree = list(api.list_repo_tree(recursive=True, expand=True, **repo))
try:
    api.auth_check(**repo)
except GatedRepoError as error:
    gate = str(error)
print(json.dumps({
    "siblings": {file.rfilename: [file.size, file.lfs and file.lfs.sha256] for file in information.siblings},
    "configs": [config["config_name"] for config in information.card_data["configs"]],
    "gated": information.gated,
    "tree": [[entry.path, entry.last_commit.oid == information.sha] for entry in tree],
    "folder": [entry.path for entry in api.list_repo_tree(path_in_repo="pose", revision="refs/pr/1", **repo)],
    "paths": [entry.path for entry in api.get_paths_info(paths=["pose", "README.md", "none"], **repo)],
    "refs": [reference.name for reference in api.list_repo_refs(**repo).tags],
    "revisions": [api.revision_exists(revision=revision, **repo) for revision in (information.sha, "v9")],
    "exists": [api.repo_exists(f"ccvl/{name}", repo_type="dataset") for name in ("ImageNet3D", "Nothing")],
    "card": HfFileSystem().read_text("datasets/ccvl/ImageNet3D/README.md").splitlines()[-1],
    "gate": gate,
}))
"""


def test_the_interface_of_huggingface_hub_is_answered(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "data", "v1.0.0")
    with serve(folder, revisions={"refs/pr/1": folder}, gated=True) as hub:
        found = client(sys.executable, hub, tmp_path / "cache", INTERFACE)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert found["siblings"] == {
        path.relative_to(folder).as_posix(): [
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".parquet" else None,
        ]
        for path in files
    }
    assert found["configs"] == ["pose", "known", "large"]
    assert found["gated"] == "auto"
    assert sorted(found["tree"]) == [[path, True] for path in sorted([*found["siblings"], "large", "pose"])]
    assert found["folder"] == [path for path in found["siblings"] if path.startswith("pose/")]
    assert found["paths"] == ["pose", "README.md"]
    assert found["refs"] == ["refs/pr/1"]
    assert found["revisions"] == [True, False]
    assert found["exists"] == [True, False]
    assert found["card"] == "# A small dataset"
    assert f"Access to dataset {REPO} is restricted." in found["gate"]


def test_a_client_inherits_no_token_and_reaches_no_other_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_developer")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    with serve(tmp_path) as hub:
        environment = hub.environment(tmp_path / "cache")
        assert hub.environment(tmp_path, token="hf_x")["HF_TOKEN"] == "hf_x"
    assert not {"HF_TOKEN", "HF_HUB_OFFLINE", "HTTPS_PROXY"} & set(environment)
    assert environment["https_proxy"] == environment["HF_ENDPOINT"] == hub.endpoint


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder with a binary file and a text, and beside it what must never be served."""
    folder = tmp_path / "public"
    (folder / ".hidden").mkdir(parents=True)
    (folder / "deep").mkdir()
    (folder / "data.bin").write_bytes(bytes(range(256)))
    (folder / "deep" / "note.txt").write_text("seen\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret\n", encoding="utf-8")
    (folder / ".hidden" / "secret.txt").write_text("secret\n", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        (None, 200, bytes(range(256))),
        ("bytes=0-3", 206, bytes(range(4))),
        ("bytes=250-", 206, bytes(range(250, 256))),
        ("bytes=-2", 206, bytes([254, 255])),
        ("bytes=250-999", 206, bytes(range(250, 256))),
        ("bytes=256-", 416, None),
    ],
)
def test_byte_ranges(plain: Path, asked: str | None, status: int, content: bytes | None) -> None:
    path = f"/datasets/{REPO}/resolve/main/data.bin"
    with serve(plain) as hub:
        answer, headers, body = get(hub, path, **({"Range": asked} if asked else {}))
        (request,) = hub.requests
    assert (answer, request.status, request.range) == (status, status, asked)
    if content is not None:
        assert body == content
        assert request.sent == int(headers["Content-Length"]) == len(content)
    if status == 206:
        assert headers["Content-Range"] == f"bytes {content[0]}-{content[-1]}/256"


def test_headers_name_the_commit_and_the_content(plain: Path) -> None:
    with serve(plain) as hub:
        status, binary, body = get(hub, f"/datasets/{REPO}/resolve/{hub.sha()}/data.bin", "HEAD")
        _, text, _ = get(hub, f"/datasets/{REPO}/resolve/main/deep/note.txt", "HEAD")
    assert (status, body, binary["Content-Length"]) == (200, b"", "256")
    assert binary["X-Repo-Commit"] == text["X-Repo-Commit"] == hub.sha()
    sha256 = hashlib.sha256(bytes(range(256))).hexdigest()
    assert binary["ETag"] == binary["X-Linked-Etag"] == f'"{sha256}"'
    assert binary["X-Linked-Size"] == "256"
    blob_id = hashlib.sha1(b"blob 5\0seen\n").hexdigest()
    assert text["ETag"] == f'"{blob_id}"'
    assert "X-Linked-Etag" not in text


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "deep/../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "deep%2f..%2f..%2fsecret.txt",
        ".hidden/secret.txt",
        "./.hidden/secret.txt",
        "link.txt",
        "{outside}/secret.txt",
        "%2f{outside}/secret.txt",
    ],
)
def test_nothing_outside_the_repository_is_served(plain: Path, path: str) -> None:
    path = path.format(outside=plain.parent)
    with serve(plain) as hub:
        for address in (f"/datasets/{REPO}/resolve/main/{path}", f"/api/datasets/{REPO}/tree/main/{path}"):
            status, headers, body = get(hub, address)
            assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")
            assert b"secret\n" not in body
        _, _, listing = get(hub, f"/api/datasets/{REPO}/tree/main?recursive=true")
    assert {entry["path"] for entry in json.loads(listing)} == {"data.bin", "deep", "deep/note.txt"}


@pytest.mark.parametrize(
    ("address", "token", "status", "code"),
    [
        ("/datasets/ccvl/Nothing/resolve/main/data.bin", None, 401, "RepoNotFound"),
        ("/datasets/ccvl/Nothing/resolve/main/data.bin", TOKEN, 404, "RepoNotFound"),
        (f"/api/datasets/{REPO}/revision/v9", None, 404, "RevisionNotFound"),
        (f"/datasets/{REPO}/resolve/v9/data.bin", None, 404, "RevisionNotFound"),
        (f"/datasets/{REPO}/resolve/main/data.bin", None, 401, "GatedRepo"),
        (f"/datasets/{REPO}/resolve/main/data.bin", "hf_stranger", 403, "GatedRepo"),
        (f"/datasets/{REPO}/resolve/main/none.bin", None, 401, "GatedRepo"),
        (f"/datasets/{REPO}/resolve/main/none.bin", TOKEN, 404, "EntryNotFound"),
        (f"/datasets/{REPO}/resolve/main/data.bin", TOKEN, 200, None),
        (f"/api/datasets/{REPO}/tree/main/deep", None, 200, None),
        (f"/api/datasets/{REPO}/tree/main/none", None, 404, "EntryNotFound"),
        (f"/api/datasets/{REPO}/auth-check", TOKEN, 200, None),
        ("/api/models/ccvl/ImageNet3D", None, 404, None),
    ],
)
def test_refusals_carry_the_code_of_the_hub(
    plain: Path, address: str, token: str | None, status: int, code: str | None
) -> None:
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    with serve(plain, gated=True) as hub:
        for method in ("GET", "HEAD"):
            found, headers, _ = get(hub, address, method, **authorization)
            assert (found, headers["X-Error-Code"]) == (status, code)


def test_a_revision_is_a_snapshot_of_a_folder(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "old.txt").write_text("old\n", encoding="utf-8")
    with serve(plain, revisions={"v1.0.0": tmp_path / "earlier"}) as hub:
        (plain / "late.txt").write_text("late\n", encoding="utf-8")
        for revision in ("v1.0.0", hub.sha("v1.0.0")):
            assert get(hub, f"/datasets/{REPO}/resolve/{revision}/old.txt")[2] == b"old\n"
            assert get(hub, f"/datasets/{REPO}/resolve/{revision}/data.bin")[0] == 404
        assert get(hub, f"/datasets/{REPO}/resolve/main/late.txt")[0] == 404
        assert [len(hub.fetched(path)) for path in ("old.txt", "data.bin")] == [2, 0]
        earlier = hub.sha()
    with serve(plain) as hub:
        assert hub.sha() != earlier
