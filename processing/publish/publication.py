"""What is to be published: the files of a built folder, written for the repository they will stand in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

import dataset_card
from ImageNet3D import REPOSITORY
from processing.built import CARD, CROISSANT, MANIFEST, Manifest
from processing.card.pages import pages_for
from processing.publish.repository import PublishError

# Registers the dataset as a benchmark: the Hub's list of evaluation frameworks must know it first. It is no
# part of a version, so that it may be sent when that has its tag.
BENCHMARK = "eval.yaml"
NAMING = (CARD, CROISSANT)  # the pages that name the repository they stand in


@dataclass(frozen=True)
class Content:
    """What a path of the repository is to hold: a file on this machine, or bytes."""

    source: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, data: bytes) -> "Content":
        """Content that is on no disk."""
        return cls(data, len(data), hashlib.sha256(data).hexdigest())

    @cached_property
    def blob_id(self) -> str:
        """What git calls it: for small contents, which git keeps."""
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def is_in(self, file: RepoFile) -> bool:
        """Whether the Hub's file has this content; what git keeps is known by its git id alone."""
        if file.size != self.size:
            return False
        return file.lfs.sha256 == self.sha256 if file.lfs is not None else file.blob_id == self.blob_id


@dataclass(frozen=True)
class Publication:
    """All that is to be published, by path, and its version."""

    version: str
    contents: Mapping[str, Content]

    @property
    def tag(self) -> str:
        """The name of the version in the repository."""
        return f"v{self.version}"

    def tagged(self) -> "Publication":
        """What the tag stands for: all but the benchmark."""
        return replace(self, contents={p: c for p, c in self.contents.items() if p != BENCHMARK})


def read_publication(folder: Path, manifest: Manifest, repo: str, benchmark: bool = False) -> Publication:
    """What a built folder's manifest lists, and the manifest to publish with it.

    Args:
        folder: the built folder.
        manifest: of it.
        repo: where it will stand: the card and Croissant name that repository.
        benchmark: whether to send `BENCHMARK` too.

    Raises:
        OSError: if a file cannot be read.
        PublishError: if it has categories whose label ids may still move, a file changed since it was
            verified, or this installation has no `BENCHMARK`.
    """
    if unknown := manifest.findings.get("category_unknown"):
        raise PublishError(
            f"{folder}: {unknown} categories are unknown to the code that built it, so their label ids may "
            "still move; append them to ImageNet3D.LATER_CATEGORIES, build again and publish"
        )
    contents = {path: Content(folder / path, e.size, e.sha256) for path, e in manifest.files.items()}
    contents |= _pages(folder, manifest, repo)
    listed = {
        path: replace(entry, size=contents[path].size, sha256=contents[path].sha256)
        for path, entry in manifest.files.items()
    }
    whole = replace(manifest, files=listed, options={**manifest.options, "repository": repo})
    contents[MANIFEST] = Content.of_bytes(whole.to_json())
    if benchmark:
        contents[BENCHMARK] = Content.of_bytes(_benchmark())
    return Publication(manifest.version, dict(sorted(contents.items())))


def _pages(folder: Path, manifest: Manifest, repo: str) -> dict[str, Content]:
    """The pages that name their repository; written anew for another, where they are what was verified."""
    pages = {
        path: Content.of_bytes((folder / path).read_bytes()) for path in NAMING if path in manifest.files
    }
    for path, page in pages.items():
        if page.sha256 != manifest.files[path].sha256:
            raise PublishError(f"{folder / path}: changed after it was verified; build again and publish")
    if repo == manifest.options.get("repository", REPOSITORY):
        return pages
    anew = pages_for(folder, manifest, repo)
    return {path: Content.of_bytes(anew[path]) for path in pages}


def _benchmark() -> bytes:
    source = Path(dataset_card.__file__).with_name(BENCHMARK)
    try:
        return source.read_bytes()
    except FileNotFoundError:
        raise PublishError(f"--benchmark: {source} is not there; leave the option out") from None
