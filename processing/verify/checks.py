"""What `verify` checks: every code with its rule and remedy, the viewer's limits, and what checks look at."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tabulate import tabulate

from processing.accounts import CategoryCounts
from processing.configs import DERIVED_TABLES

_AGAIN = "run the same build again, or download the file again: it is not as it was written"
_ANEW = "remove the folder and build it anew, or download it again"
_FAULT = "the program that wrote this is at fault; please report it"
_ROWS = "leave the split out of the release"
_FEW = "nothing, or more rows: the viewer of the Hub shows no statistics of such a split"
_MOVE = "move the file elsewhere"
_UNLIST = "take the picture from the release's lists and build again"
_SMALLER = "build with a smaller --shard-size, or without huge pictures or meshes"
_SHORTER = "shorten the text"
_OTHER_RAW = "give the release that was built, or build anew"


@dataclass(frozen=True)
class Check:
    """A stable code, what is wrong where it appears, and what to do; a note is no fault."""

    code: str
    rule: str
    remedy: str
    is_note: bool = False


# fmt: off
_CHECKS = (
    # the folder and its files
    Check("unfinished", "no card or no manifest: the build has not come to its end", _AGAIN),
    Check("bookkeeping_damaged", "a file of the build's own cannot be read", _ANEW),
    Check("file_missing", "a file of the manifest is not there", _AGAIN),
    Check("file_unlisted", "a file is not in the manifest", _MOVE),
    Check("checksum_differs", "a file's bytes are not those that were written", _AGAIN),
    Check("version_differs", "the manifest has another version than the metadata of Croissant", _ANEW),
    Check("shard_name", "a shard's name, number or total does not fit the plan", _ANEW),
    # Parquet
    Check("parquet_unreadable", "a file cannot be read to its last page", _AGAIN),
    Check("schema_differs", "columns, types or embedded features are not the config's", _ANEW),
    Check("encoding", "a column is compressed, or pictures are outside the dictionary", _ANEW),
    Check("row_group_too_large", "a row group has too many pictures, or too many bytes of them", _FAULT),
    Check("picture_cut", "the rows of a picture are not together in one row group", _FAULT),
    Check("place_differs", "a picture is at different places, or not the common ones first", _FAULT),
    # rows
    Check("key_duplicate", "image_id with object_index, category with cad_index, or name is twice", _FAULT),
    Check("split_overlap", "a picture is in both splits", _FAULT),
    Check("kind_mixed", "a category is not of the kind that the shard's name says", _FAULT),
    Check("value", "a value is missing, not finite or outside its range", _FAULT),
    Check("picture_undecodable", "a picture cannot be decoded to its last pixel", _UNLIST),
    Check("picture_size", "a picture's size is not width and height", _FAULT),
    Check("picture_turned", "a picture would be turned by its orientation tag", _FAULT),
    Check("picture_differs", "a picture has other bytes in another row or config", _FAULT),
    Check("mesh_unreadable", "a mesh cannot be read", _FAULT),
    # counts
    Check("card", "the card's YAML does not fit the shards", _AGAIN),
    Check("books", "rows, markers and ledger do not agree", _AGAIN),
    Check("counts_differ", "a count in categories is not that of the shards", _AGAIN),
    # the viewer of the Hub
    Check("viewer_empty_split", "a split has no rows: the viewer and the loader refuse it", _ROWS),
    Check("viewer_lone_value", "a column has one value in a split: the statistics fail", _FEW, True),
    Check("viewer_page", "a page lies in more bytes of row groups than the viewer fetches", _SMALLER),
    Check("viewer_cell", "a text or list is larger than the first page may be", _SHORTER),
    # against the raw release
    Check("raw_value", "a row is not what the raw release says", _ANEW),
    Check("raw_picture_lost", "a picture is neither in a shard nor left out in the ledger", _ANEW),
    Check("raw_picture_unknown", "a picture is not in the raw release's lists of the split", _OTHER_RAW),
    Check("raw_mesh_lost", "a mesh is neither in cad nor left out in the ledger", _ANEW),
)
# fmt: on

CHECKS: Mapping[str, Check] = MappingProxyType({check.code: check for check in _CHECKS})


_CELL = 300  # characters of a table's cell


@dataclass(frozen=True, order=True)
class Problem:
    """Something that is not as it must be.

    Attributes:
        file: path inside the built folder, or a config and split.
        code: of `CHECKS`.
        what: was found.
    """

    file: str
    code: str
    what: str = ""

    @property
    def remedy(self) -> str:
        """What to do."""
        return CHECKS[self.code].remedy

    @property
    def is_note(self) -> bool:
        """Whether the folder is as it was built all the same."""
        return CHECKS[self.code].is_note


def problems_table(problems: Sequence[Problem]) -> str:
    """The problems as text, then the rule and the remedy of each kind."""
    if [p.code for p in problems] == ["unfinished"]:
        return f"{problems[0].file}: {CHECKS['unfinished'].rule}; {problems[0].remedy}"
    kinds = [CHECKS[code] for code in dict.fromkeys(p.code for p in problems)]
    cells = [(p.code, p.file[:_CELL], p.what[:_CELL]) for p in problems]
    found = tabulate(cells, ("problem", "file", "found"), "simple", disable_numparse=True)
    rules = tabulate([(k.code, k.rule, k.remedy) for k in kinds], ("problem", "rule", "remedy"), "simple")
    return f"{found}\n\n{rules}"


# Limits of the Hub's viewer, from its source (github.com/huggingface/dataset-viewer):
# services/worker/src/worker/config.py and libs/libcommon/src/libcommon/{parquet_utils,statistics_utils}.py.
#
# - A page is 100 rows. The row groups it lies in may have 300 MB together (`max_arrow_data_in_memory`; above:
#   "Rows from parquet row groups are too big to be read", "Scan size limit exceeded").
# - Files with row groups above `PARQUET_AND_INFO_MAX_ROW_GROUP_BYTE_SIZE_FOR_COPY` (100 MB in the source) are
#   converted, up to 5 GB, instead of shown as they are: MAX_ROW_GROUP_BYTES.
# - The first page's answer has at most `FIRST_ROWS_MAX_BYTES`, 1 MB; longer cells are cut.
# - Statistics take the standard deviation of every column of numbers, list lengths and picture widths
#   (`min_max_mean_median_std`): one value has none, which is an error for the split. Infinite numbers have
#   no histogram (`generate_bins`). Rows without any value are fine, and so are null labels and bools.
# - Bytes in a struct, such as a mesh, are shown as text, and cut as soon as the first page is full; a picture
#   is one only in a column of its own (`columns_to_keep_untruncated` in viewer_utils/rows.py).
# - A split without rows divides by zero there (issue 2631), and `datasets` refuses to load it.
VIEWER_PAGE_ROWS = 100
VIEWER_PAGE_BYTES = 300 * 10**6
VIEWER_CELL_BYTES = 10**6


@dataclass
class ShardFacts:
    """What was seen in one shard; what is checked across shards needs no more.

    Attributes:
        name: of the shard; "" for other files.
        problems: in the order of the checks.
        image_ids: of all its configs.
        rows: path -> rows.
        row_groups: path -> (rows, bytes) of each.
        values: path -> column -> values that are not null, of the columns the viewer takes numbers from.
        meshes: category and index of each row of cad.
        category_rows: of categories.
        categories: what its rows come to, counted as categories should.
    """

    name: str = ""
    problems: list[Problem] = field(default_factory=list)
    image_ids: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    row_groups: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    values: dict[str, Counter[str]] = field(default_factory=dict)
    meshes: list[tuple[str, int]] = field(default_factory=list)
    category_rows: list[Mapping[str, Any]] = field(default_factory=list)
    categories: CategoryCounts = field(default_factory=CategoryCounts)


@dataclass(frozen=True)
class RowGroup:
    """A row group of one file, read to its last page.

    Attributes:
        path: of the file.
        config: of the file.
        number: from 0.
        table: all columns.
        runs: image ids as they follow each other, each run of rows once.
        metadata: of the row group.
    """

    path: str
    config: str
    number: int
    table: pa.Table
    runs: tuple[str, ...]
    metadata: pq.RowGroupMetaData

    def problem(self, code: str, what: str) -> Problem:
        """A problem of this file."""
        return Problem(self.path, code, what)

    @property
    def derived(self) -> bool:
        """Whether every row has a picture of its own, made from one of the release."""
        return self.config in DERIVED_TABLES

    def names(self) -> list[str]:
        """What each row's picture is called: its image id, and for a crop the object's index."""
        ids = self.table["image_id"].to_pylist()
        if not self.derived:
            return ids
        indices = self.table["object_index"].to_pylist()
        return [f"{image_id}_{index or 0:02d}" for image_id, index in zip(ids, indices, strict=True)]

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of each picture, and again where a row of it has other bytes."""
        images = self.table["image"].combine_chunks().field("bytes")
        for name, index in dict.fromkeys(zip(self.names(), images.indices.to_pylist(), strict=True)):
            yield name, b"" if index is None else images.dictionary[index].as_py()
