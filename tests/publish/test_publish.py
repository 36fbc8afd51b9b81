"""publish against a Hub on loopback that takes commits: what it received, and what it was asked.

Contents go through Git LFS here: Xet, which the real Hub offers, has a protocol of its own.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support import PROJECT
from support.hub import TOKEN
from support.hub_writing import READER, Fault, WritableHub, serve_writable
from support.raw_tree import RawTreeWriter

import ImageNet3D
from processing.__main__ import main
from processing.build.command import build
from processing.built import MANIFEST, Manifest
from processing.publish import publication, repository
from processing.publish.command import PublishReport, publish
from processing.publish.repository import PublishError
from processing.runtime.strict import DamagedError
from processing.verify.command import verify

pytestmark = pytest.mark.slow

REPO = "ccvl/ImageNet3D"
RAW = (ImageNet3D.RAW_ARCHIVE, b"the raw release")
TAG = f"v{ImageNet3D.__version__}"
CONTENT = r"^/storage/"
COMMIT = r"/commit/"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with serve_writable(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def no_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is taken to be whole: what verify finds is its own tests' concern."""
    monkeypatch.setattr("processing.verify.command.verify", lambda *arguments, **options: [])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Xet, and waits that are over soon."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True, raising=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small release with a category that is held out."""
    tree = RawTreeWriter().sound("bed", tuple("abcdef"), tuple("vwxy"))
    return tree.sound("kettle", tuple("abcdef"), tuple("vwxy")).folder(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def built(raw: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "ImageNet3D"
    build(raw, out, workers=1, shard_size="3KB")
    return out


@pytest.fixture(scope="module")
def built_next(raw: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later release: other shards, other order."""
    out = tmp_path_factory.mktemp("next") / "ImageNet3D"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNet3D, "__version__", "99.1.0")
        build(raw, out, configs=["pose", "classification"], workers=1, shard_size="10KB", seed=1)
    return out


def send(out: Path, hub: WritableHub, token: str = TOKEN, **options: Any) -> PublishReport:
    return publish(out, REPO, token=token, endpoint=hub.endpoint, workers=1, **options)


def refusal(out: Path, hub: WritableHub, **options: Any) -> str:
    with pytest.raises(PublishError) as caught:
        send(out, hub, **options)
    return str(caught.value)


def published_files(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and ".build" not in path.parts
    }


def loaded(jobs: dict[str, dict[str, Any]], hub: WritableHub, folder: Path) -> dict[str, Any]:
    """The rows of each job, loaded by a process that knows only this Hub."""
    common = {"way": "user", "captions": None, "cache": str(folder / "cache"), "streaming": False}
    outs = {name: folder / f"rows-{number}.json" for number, name in enumerate(jobs)}
    listed = [{**common, "out": str(outs[name]), **job} for name, job in jobs.items()]
    (folder / "jobs.json").write_text(json.dumps(listed), "utf-8")
    command = [sys.executable, str(PROJECT / "tests" / "support" / "load_rows.py"), str(folder / "jobs.json")]
    subprocess.run(command, env=hub.environment(folder / "home", TOKEN), check=True, timeout=120)
    return {name: json.loads(out.read_text("utf-8")) for name, out in outs.items()}


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["image_id"] for row in rows]


def ids_in(out: Path, shards: str) -> list[str]:
    """The same of shards of pose, in their order."""
    return [
        row for path in sorted(out.glob(f"pose/{shards}")) for row in ids(pq.read_table(path).to_pylist())
    ]


def command(hub: WritableHub, home: Path, *arguments: str, token: str | None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "processing", "publish", *arguments],
        cwd=PROJECT,
        env=hub.environment(home, token),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_publishes_what_loads_back(built: Path, tmp_path: Path) -> None:
    with serve_writable(tmp_path / "hub", exists=False) as hub:
        done = command(hub, tmp_path, str(built), "--repo", REPO, token=TOKEN)
        assert done.returncode == 0, done.stderr
        assert "Published with one commit" in done.stdout

        files = hub.files()
        assert files.pop(".gitattributes")
        assert files == published_files(built)
        assert Manifest.from_json(files[MANIFEST]).files.keys() == files.keys() - {MANIFEST}
        assert hub.repository.settings == {"gated": "auto"}

        jobs = {config: {"path": REPO, "config": config} for config in ("pose", "open_vocab_unknown")}
        rows = loaded(jobs, hub, tmp_path)
        assert ids(rows["pose"]["train"]) == ids_in(built, "train-*")
        assert ids(rows["open_vocab_unknown"]["validation"]) == ids_in(built, "validation-*-unknown.parquet")


@pytest.mark.usefixtures("no_verify")
def test_contents_come_first_then_one_commit_then_the_tag(built: Path, hub: WritableHub) -> None:
    parent = hub.sha()
    report = send(built, hub)
    writes = [r.path for r in hub.requests if r.method in ("POST", "PUT", "DELETE")]
    commit = next(path for path in writes if "/commit/" in path)
    assert hub.asked("POST", COMMIT) == [commit]
    after = writes[writes.index(commit) + 1 :]
    assert after == [f"/api/datasets/{REPO}/tag/{report.commit}"]
    assert any("/settings" in path for path in writes[: writes.index(commit)])
    assert hub.repository.revisions["main"].parent.sha == parent
    assert hub.sha(TAG) == hub.sha() == report.commit


@pytest.mark.usefixtures("no_verify")
def test_the_commit_names_its_parent(built: Path, hub: WritableHub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    ask = repository.Repository._ask
    monkeypatch.setattr(
        repository.Repository,
        "_ask",
        lambda self, method, *a, **k: seen.append((method, k)) or ask(self, method, *a, **k),
    )
    parent = hub.sha()
    send(built, hub)
    commits = [options for method, options in seen if method == "create_commit"]
    assert [options["parent_commit"] for options in commits] == [parent]


@pytest.mark.usefixtures("no_verify")
def test_large_contents_go_in_parts(built: Path, tmp_path: Path) -> None:
    with serve_writable(tmp_path / "hub", part_size=5_000) as hub:
        send(built, hub)
        assert hub.asked("PUT", r"/parts/2$")
        assert published_files(built).items() <= hub.files().items()


@pytest.mark.usefixtures("no_verify")
def test_the_same_again_does_nothing(built: Path, hub: WritableHub) -> None:
    first = send(built, hub)
    before = len(hub.requests)
    again = send(built, hub)
    assert {request.method for request in hub.requests[before:]} <= {"GET", "HEAD"}
    assert again.commit == first.commit
    assert "Nothing to do" in str(again)


def test_a_later_release_replaces_only_what_the_manifest_lists(
    built: Path, built_next: Path, hub: WritableHub, tmp_path: Path
) -> None:
    hub.repository.commit_file(*RAW)
    hub.repository.commit_file("notes.txt", b"by people")
    first = send(built, hub)
    commits = len(hub.asked("POST", COMMIT))
    report = send(built_next, hub)
    assert len(hub.asked("POST", COMMIT)) == commits + 1
    assert report.changes.added
    assert report.changes.removed
    others = {".gitattributes", "notes.txt", RAW[0]}
    assert hub.files().keys() == published_files(built_next).keys() | others
    assert hub.files()[RAW[0]] == RAW[1]
    assert hub.sha(TAG) == first.commit
    assert hub.sha("v99.1.0") == hub.sha()

    jobs = {"now": {"path": REPO}, "pinned": {"path": REPO, "revision": TAG}}
    rows = loaded({name: {"config": "pose", **job} for name, job in jobs.items()}, hub, tmp_path)
    assert ids(rows["now"]["train"]) == ids_in(built_next, "train-*")
    assert ids(rows["pinned"]["train"]) == ids_in(built, "train-*")
    assert rows["now"] != rows["pinned"]


def listing(files: dict[str, bytes]) -> bytes:
    """A manifest that says these files were written."""
    entries = {
        path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": 0, "table_bytes": 0}
        for path, data in files.items()
    }
    return json.dumps({"files": entries}).encode()


@pytest.mark.usefixtures("no_verify")
def test_only_what_builds_wrote_is_removed_whatever_a_manifest_says(built: Path, hub: WritableHub) -> None:
    ours = {"pose/train-00009-of-00010-known.parquet": b"PAR1", "figures/old.svg": b"<svg/>"}
    theirs = {
        RAW[0]: RAW[1],
        "imagenet3d_v2.zip": b"the next release",
        "notes.md": b"by people",
        "figures/edited.svg": b"<svg>by people</svg>",
    }
    for path, data in {**ours, **theirs}.items():
        hub.repository.commit_file(path, data)
    listed = {**ours, **theirs, "figures/edited.svg": b"<svg>ours</svg>", "figures/never_there.svg": b""}
    hub.repository.commit_file(MANIFEST, listing(listed))
    report = send(built, hub)
    assert report.changes.removed.keys() == ours.keys()
    assert theirs.items() <= hub.files().items()
    assert not ours.keys() & hub.files().keys()
    assert "notes.md" in str(report)
    assert "figures/edited.svg" in str(report)


@pytest.mark.usefixtures("no_verify")
def test_a_dry_run_sends_nothing(built: Path, built_next: Path, hub: WritableHub) -> None:
    send(built, hub)
    before, head = len(hub.requests), hub.sha()
    report = send(built_next, hub, dry_run=True)
    assert {request.method for request in hub.requests[before:]} <= {"GET", "HEAD"}
    assert hub.sha() == head
    text = str(report)
    assert f"{sum(report.changes.to_send.values()):,} bytes" in text
    assert "~ README.md" in text
    assert all(f"- {path}" in text for path in report.changes.removed)
    removed = published_files(built).keys() - published_files(built_next).keys()
    assert report.changes.removed.keys() == removed


@pytest.mark.usefixtures("no_verify")
def test_a_dry_run_makes_no_repository(built: Path, tmp_path: Path) -> None:
    with serve_writable(tmp_path / "hub", exists=False) as hub:
        report = send(built, hub, dry_run=True)
        assert not hub.repository.exists
        assert report.changes.added.keys() == published_files(built).keys()
        assert "would be gated first" in str(report)


@pytest.mark.usefixtures("no_verify")
def test_a_branch_is_made_and_not_tagged(built: Path, hub: WritableHub) -> None:
    main = hub.sha()
    for _ in range(2):
        report = send(built, hub, revision="trial")
    assert hub.sha("trial") == report.commit != main
    assert hub.sha() == main
    assert not hub.repository.tags


@pytest.mark.parametrize("revision", [None, "trial", "refs/pr", "refs/pr/1"])
@pytest.mark.usefixtures("no_verify")
def test_an_open_repository_is_gated_before_the_first_byte(
    revision: str | None, built: Path, hub: WritableHub
) -> None:
    """What is on a branch or in a pull request is as open as the repository."""
    hub.repository.revisions["refs/pr/1"] = hub.repository.revisions["main"]
    assert "would be gated first" in str(send(built, hub, revision=revision, dry_run=True))
    assert not hub.repository.settings
    send(built, hub, revision=revision, gated="manual")
    assert hub.repository.settings == {"gated": "manual"}
    writes = [r.path for r in hub.requests if r.method in ("POST", "PUT", "DELETE")]
    assert writes[0].endswith("/settings")


@pytest.mark.parametrize("revision", [None, "trial", "refs/pr"])
@pytest.mark.usefixtures("no_verify")
def test_nothing_is_sent_where_the_gate_cannot_be_shut(
    revision: str | None, built: Path, hub: WritableHub
) -> None:
    assert "only an owner can gate it" in refusal(built, hub, token=READER, revision=revision)
    assert {r.method for r in hub.requests if not r.path.endswith("/settings")} <= {"GET", "HEAD"}


@pytest.mark.usefixtures("no_verify")
def test_a_gate_that_is_shut_stays_as_it_is(built: Path, hub: WritableHub) -> None:
    hub.repository.gate = TOKEN
    send(built, hub, gated="manual")
    assert not hub.asked("PUT", "/settings")


@pytest.mark.parametrize("revision", ["", "  "])
def test_a_revision_without_a_name_is_no_revision(revision: str, built: Path, hub: WritableHub) -> None:
    with pytest.raises(ValueError, match="no name"):
        send(built, hub, revision=revision)
    done = CliRunner().invoke(main, ["publish", str(built), "--repo", REPO, "--revision", revision])
    assert done.exit_code == 2
    assert not hub.requests


@pytest.mark.usefixtures("no_verify")
def test_a_visitor_opens_a_pull_request_and_goes_on_in_it(
    built: Path, built_next: Path, hub: WritableHub
) -> None:
    hub.repository.gate = TOKEN
    report = send(built, hub, token=READER, revision="refs/pr")
    assert report.page.endswith("/discussions/1")
    assert published_files(built).items() <= hub.files("refs/pr/1").items()
    send(built_next, hub, revision="refs/pr/1")
    assert published_files(built_next).items() <= hub.files("refs/pr/1").items()
    assert "no such branch or pull request" in refusal(built, hub, revision="refs/pr/7")
    assert hub.repository.tags == set()


@pytest.mark.usefixtures("no_verify")
def test_tags_do_not_move(built: Path, built_next: Path, hub: WritableHub) -> None:
    send(built, hub)
    assert "is a tag" in refusal(built_next, hub, revision=TAG)
    hub.repository.revisions["v99.1.0"] = hub.repository.revisions[TAG]
    hub.repository.tags.add("v99.1.0")
    before = len(hub.requests)
    assert "raise __version__" in refusal(built_next, hub)
    assert {request.method for request in hub.requests[before:]} <= {"GET", "HEAD"}


def edit(hub: WritableHub, path: str) -> bytes:
    """Others change a file, to the same size, which git and LFS tell in their own ways."""
    hub.repository.commit_file(path, hub.files()[path].swapcase())
    return hub.files()[path]


@pytest.mark.usefixtures("no_verify")
def test_what_others_changed_is_named_and_kept(built: Path, hub: WritableHub) -> None:
    first = send(built, hub)
    shard = next(path for path in hub.files() if path.endswith(".parquet"))
    edited = {path: edit(hub, path) for path in ("README.md", shard)}
    hub.repository.commit_file("notes.txt", b"by people")
    head = hub.sha()
    report = send(built, hub)
    assert hub.sha() == head
    assert list(report.changes.kept) == ["README.md", shard]
    assert {"= README.md", f"= {shard}", "notes.txt"} <= {line.strip() for line in str(report).splitlines()}
    assert edited.items() <= hub.files().items()
    assert hub.sha(TAG) == first.commit


@pytest.mark.usefixtures("no_verify")
def test_what_others_changed_is_replaced_where_that_is_asked_for(built: Path, hub: WritableHub) -> None:
    first = send(built, hub)
    shard = next(path for path in hub.files() if path.endswith(".parquet"))
    for path in ("README.md", shard):
        edit(hub, path)
    report = send(built, hub, overwrite=True)
    assert list(report.changes.replaced) == ["README.md", shard]
    assert published_files(built).items() <= hub.files().items()
    assert hub.sha(TAG) == first.commit


@pytest.mark.usefixtures("no_verify")
def test_what_others_and_the_release_change_is_a_conflict(
    built: Path, built_next: Path, hub: WritableHub
) -> None:
    send(built, hub)
    theirs = edit(hub, "README.md")
    before, head = len(hub.requests), hub.sha()
    message = refusal(built_next, hub)
    assert "README.md: changed on the Hub by others" in message
    assert "--overwrite" in message
    assert "! README.md" in str(send(built_next, hub, dry_run=True))
    assert {request.method for request in hub.requests[before:]} <= {"GET", "HEAD"}
    assert (hub.sha(), hub.files()["README.md"]) == (head, theirs)
    send(built_next, hub, overwrite=True)
    assert published_files(built_next).items() <= hub.files().items()


@pytest.mark.usefixtures("no_verify")
def test_a_card_that_was_there_first_is_not_written_over(built: Path, hub: WritableHub) -> None:
    hub.repository.commit_file("README.md", b"# by people")
    assert "README.md" in refusal(built, hub)
    send(built, hub, overwrite=True)
    assert hub.files()["README.md"] == (built / "README.md").read_bytes()


@pytest.mark.usefixtures("no_verify")
def test_names_of_others_are_printed_escaped(built: Path, hub: WritableHub) -> None:
    hub.repository.commit_file("\x1b]0;owned\x07.txt", b"by people")
    report = str(send(built, hub))
    assert "\x1b" not in report
    assert "\\x1b]0;owned" in report


@pytest.mark.parametrize("path", ["ImageNet3D.py", "pose/train-00000-of-00001.parquet"])
@pytest.mark.usefixtures("no_verify")
def test_files_that_would_spoil_the_release_are_named(path: str, built: Path, hub: WritableHub) -> None:
    hub.repository.commit_file(path, b"by people")
    message = refusal(built, hub)
    assert path in message
    assert "remove it there" in message


@pytest.mark.usefixtures("no_verify")
@pytest.mark.parametrize("data", [b"[", b"{}", b'{"files": []}', b'{"files": {"../up": {}}}', b"[" * 10**5])
def test_a_damaged_manifest_of_the_repository_is_not_guessed_at(
    data: bytes, built: Path, hub: WritableHub
) -> None:
    hub.repository.commit_file(MANIFEST, data)
    message = refusal(built, hub)
    assert f"{MANIFEST} at main" in message
    assert "repository's history" in message


def test_categories_whose_ids_may_move_are_refused(hub: WritableHub, tmp_path: Path) -> None:
    raw = RawTreeWriter().sound("bed").sound("spaceship").zip(tmp_path / "raw.zip")
    build(raw, tmp_path / "out", configs=["classification"], workers=1)
    message = refusal(tmp_path / "out", hub)
    assert "1 categories are unknown" in message
    assert "LATER_CATEGORIES" in message


def test_a_folder_that_is_not_whole_is_refused(built: Path, hub: WritableHub, tmp_path: Path) -> None:
    out = tmp_path / "ImageNet3D"
    shutil.copytree(built, out)
    with (out / "README.md").open("ab") as card:
        card.write(b"more")
    message = refusal(out, hub)
    assert "README.md" in message
    assert "not published" in message
    assert {request.method for request in hub.requests} <= {"GET", "HEAD"}


def test_notes_stop_nothing(hub: WritableHub, tmp_path: Path) -> None:
    """A split of one row is no fault of the build."""
    out = tmp_path / "ImageNet3D"
    build(RawTreeWriter().sound().folder(tmp_path / "raw"), out, workers=1)
    assert {problem.code for problem in verify(out, workers=1)} == {"viewer_lone_value"}
    assert send(out, hub).commit == hub.sha()


@pytest.mark.parametrize("path", ["README.md", "croissant.json"])
@pytest.mark.usefixtures("no_verify")
def test_a_card_that_changed_after_it_was_verified(
    path: str, built: Path, hub: WritableHub, tmp_path: Path
) -> None:
    out = shutil.copytree(built, tmp_path / "ImageNet3D")
    (out / path).write_bytes((out / path).read_bytes() + b" ")
    assert "changed after it was verified" in refusal(out, hub)


LAB = "lab/Poses"


def test_a_lab_publishes_to_its_own_repository(built: Path, tmp_path: Path) -> None:
    """Its card loads its data, and what is there is verified by the manifest that was published."""
    with serve_writable(tmp_path / "hub", LAB, exists=False) as hub:
        publish(built, LAB, token=TOKEN, endpoint=hub.endpoint, workers=1)
        files = hub.files()
        card = files["README.md"].decode()
        assert f'load_dataset("{LAB}", "pose"' in card
        assert f'load_dataset("{REPO}"' not in card
        assert f"datasets/{LAB}" in files["croissant.json"].decode()

        huggingface_hub.snapshot_download(
            LAB, repo_type="dataset", local_dir=tmp_path / "local", endpoint=hub.endpoint, token=TOKEN
        )
    assert verify(tmp_path / "local", workers=1) == []
    with (tmp_path / "local" / "README.md").open("ab") as opened:
        opened.write(b"more")
    assert {problem.code for problem in verify(tmp_path / "local", workers=1)} == {"checksum_differs"}


@pytest.mark.usefixtures("no_verify")
def test_the_benchmark_is_sent_where_it_is_asked_for(built: Path, hub: WritableHub) -> None:
    """Also when the version has its tag: it is no part of that, and stays when the next is published."""
    first = send(built, hub)
    assert publication.BENCHMARK not in hub.files()
    report = send(built, hub, benchmark=True)
    assert report.changes.to_send.keys() == {publication.BENCHMARK}
    source = (PROJECT / "dataset_card" / publication.BENCHMARK).read_bytes()
    assert hub.files()[publication.BENCHMARK] == source
    assert hub.sha(TAG) == first.commit != hub.sha()
    assert not send(built, hub).changes
    assert hub.files()[publication.BENCHMARK] == source


def test_a_machine_that_is_offline_is_told_at_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "PAUSES", ())
    paused = []
    monkeypatch.setattr(time, "sleep", paused.append)
    for dry_run in (True, False):
        with pytest.raises(PublishError, match=r"127\.0\.0\.1:9 cannot be reached"):
            publish(built, REPO, token=TOKEN, endpoint="http://127.0.0.1:9", dry_run=dry_run)
    assert paused == []


@pytest.mark.parametrize("version", ["9.9", "1.0.0\x1b]0;owned\x07", "v1.0.0", 1, None, ["1.0.0"]])
def test_a_version_has_a_form(version: Any, built: Path, hub: WritableHub, tmp_path: Path) -> None:
    out = with_version(built, tmp_path, version)
    with pytest.raises(DamagedError, match="version") as caught:
        send(out, hub)
    assert "\x1b" not in str(caught.value)
    assert not hub.requests


def test_a_version_is_the_one_that_was_built(built: Path, hub: WritableHub, tmp_path: Path) -> None:
    message = refusal(with_version(built, tmp_path, "9.9.9"), hub)
    assert "version_differs" in message
    assert not hub.repository.tags


def with_version(built: Path, folder: Path, version: Any) -> Path:
    """A copy whose manifest names another version."""
    out = shutil.copytree(built, folder / "ImageNet3D")
    manifest = json.loads((out / MANIFEST).read_text("utf-8"))
    (out / MANIFEST).write_text(json.dumps({**manifest, "version": version}), "utf-8")
    return out


@pytest.mark.usefixtures("no_verify")
def test_a_file_that_changes_on_the_way_is_not_committed(
    built: Path, hub: WritableHub, tmp_path: Path
) -> None:
    out = tmp_path / "ImageNet3D"
    shutil.copytree(built, out)
    shard = next(out.glob("pose/*.parquet"))

    def change() -> None:
        shard.write_bytes(shard.read_bytes()[::-1])

    hub.faults.append(Fault("POST", "/preupload/", meanwhile=change))
    assert "changed while it was sent" in refusal(out, hub)
    assert not hub.asked("POST", COMMIT)


@pytest.mark.usefixtures("no_verify")
def test_a_commit_that_lacks_a_file_is_not_tagged(built: Path, hub: WritableHub) -> None:
    hub.repository.ignored = {"README.md"}
    message = refusal(built, hub)
    assert "README.md" in message
    assert ".gitignore" in message
    assert not hub.repository.tags


def test_without_a_token_the_command_says_how_to_get_one(
    built: Path, hub: WritableHub, tmp_path: Path
) -> None:
    done = command(hub, tmp_path, str(built), "--repo", REPO, token=None)
    assert done.returncode == 1
    assert "there is no token" in done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert not hub.requests


@pytest.mark.parametrize(
    ("token", "message"), [("hf_unknown", "does not accept this token"), (READER, "right to write")]
)
@pytest.mark.usefixtures("no_verify")
def test_tokens_without_rights(token: str, message: str, built: Path, hub: WritableHub) -> None:
    hub.repository.gate = TOKEN
    text = refusal(built, hub, token=token)
    assert message in text
    assert REPO in text
    assert not hub.asked("POST", COMMIT)


@pytest.mark.usefixtures("no_verify")
def test_a_repository_that_cannot_be_made(built: Path, tmp_path: Path) -> None:
    with serve_writable(tmp_path / "hub", "ccvl/Other", exists=False) as hub:
        assert "right to write" in refusal(built, hub)
        assert "does not exist" in refusal(built, hub, revision="refs/pr/1")


@pytest.mark.usefixtures("no_verify")
def test_a_commit_made_meanwhile_is_kept(built: Path, hub: WritableHub) -> None:
    fault = Fault("POST", COMMIT, meanwhile=lambda: hub.repository.commit_file("notes.txt", b"quick"))
    hub.faults.append(fault)
    message = refusal(built, hub)
    assert "made a commit to main meanwhile" in message
    assert "run the same command again" in message
    assert "README.md" not in hub.files()

    sent = len(hub.asked("PUT", CONTENT))
    send(built, hub)
    assert len(hub.asked("PUT", CONTENT)) == sent
    assert hub.files()["notes.txt"] == b"quick"


@pytest.mark.parametrize(
    ("path", "status", "said", "message"),
    [
        (CONTENT, 413, "Payload Too Large", "smaller --shard-size"),
        (COMMIT, 403, "Private repository storage limit reached", "storage on the Hub is used up"),
        (COMMIT, 402, "Payment required", "storage on the Hub is used up"),
        ("/preupload/", 429, "Too Many Requests", "wait some minutes"),
        ("/settings", 503, "Maintenance", "the Hub is in trouble"),
    ],
)
@pytest.mark.usefixtures("no_verify")
def test_the_hubs_refusals_say_what_to_do(
    path: str, status: int, said: str, message: str, built: Path, hub: WritableHub
) -> None:
    method = "PUT" if path in (CONTENT, "/settings") else "POST"
    hub.faults.append(Fault(method, path, times=1000, status=status, message=said))
    text = refusal(built, hub)
    assert message in text
    assert said in text
    assert hub.repository.tags == set()


@pytest.mark.usefixtures("no_verify")
def test_passing_troubles_pass(built: Path, hub: WritableHub) -> None:
    hub.faults += [
        Fault("GET", "/whoami", status=503),
        Fault("GET", "/tree/"),
        Fault("PUT", CONTENT, times=3),
        Fault("POST", "/objects/batch", times=2, status=500),
        Fault("POST", COMMIT, status=504),
        Fault("POST", "/tag/"),
    ]
    report = send(built, hub)
    assert not any(fault.times for fault in hub.faults)
    assert published_files(built).items() <= hub.files().items()
    assert hub.sha(TAG) == report.commit


@pytest.mark.usefixtures("no_verify")
def test_after_network_loss_only_what_is_missing_is_sent(built: Path, hub: WritableHub) -> None:
    shards = {path for path in published_files(built) if path.endswith(".parquet")}
    lost = Fault("PUT", CONTENT, times=10_000)
    hub.faults += [Fault("PUT", CONTENT, times=5, meanwhile=lambda: None), lost]
    message = refusal(built, hub)
    assert "connection to the Hub was lost" in message
    assert "run the same command again to go on" in message
    arrived = {path.name for path in hub.repository.store.iterdir() if len(path.name) == 64}
    assert len(arrived) == 5

    lost.times = 0
    before = len(hub.requests)
    send(built, hub)
    sent = [r.path.rpartition("/")[2] for r in hub.requests[before:] if r.path.startswith("/storage/")]
    assert not arrived & set(sent)
    assert len(sent) == len(set(sent)) == len(shards) - len(arrived)


@pytest.mark.parametrize("status", [None, 500])
@pytest.mark.usefixtures("no_verify")
def test_a_commit_whose_answer_was_lost_is_found(status: int | None, built: Path, hub: WritableHub) -> None:
    hub.faults.append(Fault("POST", COMMIT, status=status, late=True))
    report = send(built, hub)
    assert hub.sha() == hub.sha(TAG) == report.commit
    assert [commit.title for commit in hub.repository.commits] == ["initial", f"ImageNet3D {TAG[1:]}"]


@pytest.mark.usefixtures("no_verify")
def test_a_pull_request_is_not_opened_twice(built: Path, hub: WritableHub) -> None:
    hub.faults.append(Fault("POST", COMMIT, late=True))
    assert "see whether the pull request has been made" in refusal(built, hub, revision="refs/pr")
    assert "refs/pr/2" not in hub.repository.revisions
    assert len(hub.asked("POST", COMMIT)) == 1


@pytest.mark.usefixtures("no_verify")
def test_a_tag_that_failed_is_set_the_next_time(built: Path, hub: WritableHub) -> None:
    hub.faults.append(Fault("POST", "/tag/", times=4, status=500))
    refusal(built, hub)
    head = hub.sha()
    report = send(built, hub)
    assert hub.sha(TAG) == report.commit == head
    assert len(hub.asked("POST", COMMIT)) == 1


@pytest.mark.parametrize("name", ["ImageNet3D", "two words/x", "a/b/c"])
def test_wrong_usage_is_told(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["publish", str(tmp_path), "--repo", name])
    assert done.exit_code == 2, done.output
