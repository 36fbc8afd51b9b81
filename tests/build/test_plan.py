"""The plan: every picture once, kinds apart and alternating, limits kept, the same for the same input."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ImageNet3D import CATEGORIES, KNOWN_CATEGORIES, SPLITS, Entry, Release, Survey, in_order
from processing.build.plan import (
    MAX_ROW_GROUP_PICTURES,
    ROW_GROUP_BYTES,
    Shard,
    parsed_size,
    plan_shards,
)
from processing.built import SHARD_NAME, shard_glob, shard_path

KNOWN = sorted(KNOWN_CATEGORIES)
UNKNOWN = [name for name in CATEGORIES if name not in KNOWN_CATEGORIES]


def survey_of(sizes: dict[str, list[tuple[bool, int]]], seed: int = 0) -> Survey:
    """A survey of pictures that are known or not, with bytes, by split."""
    entries = {}
    for split in SPLITS:
        named = [
            Entry(f"{(KNOWN if known else UNKNOWN)[i % 60]}/n{i}", split, size)
            for i, (known, size) in enumerate(sizes.get(split, []))
        ]
        entries[split] = tuple(in_order(named, split, seed))
    return Survey(Release(None, frozenset(), {}), entries, (), (), "", False)  # type: ignore[arg-type]


pictures = st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=300)


@settings(deadline=None, max_examples=150)
@given(train=pictures, validation=pictures, shard_size=st.integers(1, 5_000_000))
def test_every_picture_once_and_kinds_apart(train: list, validation: list, shard_size: int) -> None:
    survey = survey_of({"train": train, "validation": validation})
    shards = plan_shards(survey, shard_size)
    for split in SPLITS:
        mine = [shard for shard in shards if shard.split == split]
        assert sorted(e.image_id for s in mine for e in s.entries) == sorted(
            e.image_id for e in survey.entries[split]
        )
        assert [shard.number for shard in mine] == list(range(len(mine)))
        assert {shard.total for shard in mine} <= {len(mine)}
        for shard in mine:
            assert shard.entries
            assert {entry.known for entry in shard.entries} == {shard.known}
        for known in (True, False):
            in_kind = [e for s in mine if s.known is known for e in s.entries]
            assert in_kind == [e for e in survey.entries[split] if e.known is known], "the order is kept"


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 60_000_000), min_size=1, max_size=400))
def test_row_groups_keep_the_limits(sizes: list[int]) -> None:
    for shard in plan_shards(survey_of({"train": [(True, size) for size in sizes]}), 10**12):
        for group in shard.row_groups:
            assert 0 < len(group) <= MAX_ROW_GROUP_PICTURES
            assert len(group) == 1 or sum(e.size for e in group) <= ROW_GROUP_BYTES


def test_the_smaller_kind_is_spread_evenly() -> None:
    shards = plan_shards(survey_of({"train": [(i % 4 == 0, 100_000) for i in range(4000)]}), 5_000_000)
    at = [shard.number for shard in shards if shard.known]
    assert len(at) * 4 == pytest.approx(len(shards), abs=4)
    gaps = [b - a for a, b in pairwise(at)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("pictures_of_split", "divisor"), [(4000, 32), (1000, 8), (20_000, 128)])
def test_common_numbers_of_readers_divide_the_shards(pictures_of_split: int, divisor: int) -> None:
    train = [(i % 3 == 0, 100_000) for i in range(pictures_of_split)]
    shards = plan_shards(survey_of({"train": train}), 5_000_000)
    assert len(shards) % divisor == 0
    assert len(shards) <= 1.5 * pictures_of_split * 100_000 / 5_000_000 + 1


def test_32_processes_divide_the_shards_of_the_release() -> None:
    """Of some 3 to 7 GB of pictures in train, in shards of the default size."""
    for gigabytes in (3, 4, 5, 6, 7):
        survey = survey_of({"train": [(i % 3 == 0, 111_000) for i in range(gigabytes * 10**9 // 111_000)]})
        assert len(plan_shards(survey, 48_000_000)) % 32 == 0


def test_shards_are_of_nearly_equal_bytes() -> None:
    train = [(False, 50_000 + 1000 * (i % 100)) for i in range(5000)]
    sizes = [sum(e.size for e in s.entries) for s in plan_shards(survey_of({"train": train}), 10_000_000)]
    assert max(sizes) <= 10_000_000
    assert min(sizes) > 0.9 * max(sizes)


def test_a_picture_more_moves_no_other_in_train() -> None:
    before = survey_of({"train": [(True, 1)] * 100}).entries["train"]
    after = survey_of({"train": [(True, 1)] * 101}).entries["train"]
    assert [e for e in after if e in set(before)] == list(before)


def test_names_sort_by_number_and_match_their_patterns() -> None:
    import fnmatch

    shard = Shard("train", 7, 96, True, ())
    assert shard.name == "train-00007-of-00096-known"
    file = shard_path("pose", shard.name)
    assert fnmatch.fnmatch(file, shard_glob("pose", "train"))
    assert fnmatch.fnmatch(file, shard_glob("open_vocab_known", "train"))
    assert not fnmatch.fnmatch(file, shard_glob("open_vocab_unknown", "train"))
    unknown = shard_path("pose", Shard("train", 8, 96, False, ()).name)
    assert not fnmatch.fnmatch(unknown, shard_glob("open_vocab_known", "train")), "'unknown' ends in 'known'"


@pytest.mark.parametrize("total", [1, 99_999, 100_000, 1_234_567])
def test_names_of_any_number_of_shards_sort_and_are_told_apart(total: int) -> None:
    numbers = sorted({0, 1, total // 2, total - 1})
    names = [Shard("train", number, total, True, ()).name for number in numbers]
    assert names == sorted(names)
    for number, name in zip(numbers, names, strict=True):
        split, found, of, kind = SHARD_NAME.fullmatch(name).groups()
        assert (split, int(found), int(of), kind) == ("train", number, total, "known")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("48000000", 48_000_000),
        ("48MB", 48_000_000),
        ("1KiB", 1024),
        ("1TB", 10**12),
        ("48mb", 48_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "abc", "0", "0MB", "-5MB", "-1", "0.5MB", "48 parsecs", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="48MB") as caught:
        parsed_size(text)
    assert repr(text) in str(caught.value)
