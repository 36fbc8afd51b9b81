"""What publishing changes in a revision of the repository, and what it leaves to those who changed it.

A file of the repository is *ours* as long as it holds what the manifest there says was written. What is not
ours was changed by people, and is treated as in a three-way merge: it stays where the release has nothing new
for its path, and is a conflict where it has. Removed is only what is ours and has a name that builds give.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tabulate import tabulate

from ImageNet3D import RAW_ARCHIVE, shown
from processing.built import CARD, CORRECTIONS, CROISSANT, DATASHEET, FIGURES, MANIFEST, Listed
from processing.configs import ALL_TABLES
from processing.publish.publication import BENCHMARK, Publication
from processing.publish.repository import CommitFiles, Repository

# Neither listed nor anybody's edit: the raw release, the benchmark, and what the Hub keeps for itself.
_EXPECTED = frozenset({RAW_ARCHIVE, BENCHMARK, ".gitattributes"})


# Names that builds give. A manifest that names others was edited.
_PAGES = frozenset({CARD, DATASHEET, CROISSANT, CORRECTIONS})


def _is_a_releases(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    shard = folder in ALL_TABLES and name.endswith(".parquet")
    return path in _PAGES or shard or (folder == FIGURES and name.endswith(".svg"))


@dataclass(frozen=True)
class Published:
    """A revision of a repository, and what its own manifest says was written there.

    Attributes:
        repository: None for one that is yet to be made.
        revision: the files.
        written: path -> content; empty where nothing was published.
    """

    repository: Repository | None = None
    revision: CommitFiles = field(default_factory=lambda: CommitFiles("", {}))
    written: Mapping[str, Listed] = field(default_factory=dict)

    def is_ours(self, path: str) -> bool:
        """Whether a file still is what was written."""
        file, entry = self.revision.files[path], self.written.get(path)
        if entry is None or file.size != entry.size:
            return False
        if file.lfs is not None:
            return file.lfs.sha256 == entry.sha256
        # What git keeps has no checksum of its content on the Hub.
        assert self.repository is not None  # one that is yet to be made has no files
        return hashlib.sha256(self.repository.fetch(path, self.revision.sha)).hexdigest() == entry.sha256


@dataclass
class Changes:
    """What a release changes in a revision: paths, with bytes.

    Attributes:
        added, replaced, removed, unchanged: paths of the release, or of the one before.
        kept: changed by others since the last publishing, for which the release has nothing new.
        conflicts: changed by others, for which the release has something new.
        strangers: that no publishing has to do with.
    """

    added: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, int] = field(default_factory=dict)
    strangers: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed or self.conflicts)

    @property
    def to_send(self) -> dict[str, int]:
        """Paths whose content the repository does not have there, with their bytes."""
        return {**self.added, **self.replaced}

    def __str__(self) -> str:
        kinds = ("added", "replaced", "removed", "unchanged")
        sizes = [(kind, getattr(self, kind).values()) for kind in kinds]
        counts = [(kind, len(of_kind), f"{sum(of_kind):,}") for kind, of_kind in sizes]
        table = tabulate(counts, headers=("", "files", "bytes"), disable_numparse=True, stralign="right")
        return "\n\n".join([table, *self._of_others()])

    def _of_others(self) -> list[str]:
        kept = "\n".join(f"= {shown(path)}" for path in self.kept)
        strange = "\n".join(f"  {shown(path)}" for path in self.strangers)
        return [
            *([f"changed on the Hub since the last publishing, and kept:\n{kept}"] if kept else ()),
            *([f"of others, and left alone:\n{strange}"] if strange else ()),
        ]

    def paths(self) -> str:
        """What changes, a path a line."""
        marked = (("+", self.added), ("~", self.replaced), ("-", self.removed), ("!", self.conflicts))
        return "\n".join(f"{mark} {shown(path)}" for mark, paths in marked for path in paths)


def compare(release: Publication, published: Published, overwrite: bool = False) -> Changes:
    """What the release changes in a revision.

    Args:
        overwrite: replace also what others changed.
    """
    files, changes = published.revision.files, Changes()
    for path, content in release.contents.items():
        if path not in files:
            changes.added[path] = content.size
        elif content.is_in(files[path]):
            changes.unchanged[path] = content.size
        elif overwrite or path == MANIFEST or published.is_ours(path):
            changes.replaced[path] = content.size
        elif path in published.written and published.written[path].sha256 == content.sha256:
            changes.kept[path] = files[path].size
        else:
            changes.conflicts[path] = files[path].size
    for path in sorted(files.keys() - release.contents.keys() - _EXPECTED):
        if path in published.written and _is_a_releases(path) and published.is_ours(path):
            changes.removed[path] = files[path].size
        else:
            changes.strangers[path] = files[path].size
    return changes
