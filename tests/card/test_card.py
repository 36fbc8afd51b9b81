"""The card and the datasheet: what they say, that their links lead somewhere and their code runs."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from click.testing import CliRunner
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from support import PROJECT
from support.cards import page, sizes
from support.raw_tree import RawTreeWriter

import ImageNet3D
from ImageNet3D import KNOWN_CATEGORIES
from processing.__main__ import main
from processing.built import read_manifest
from processing.card.card import size_category
from processing.card.columns import COLUMNS, ELSEWHERE
from processing.card.description import Changes, Description, Errata, Erratum, SplitSize, errata_of
from processing.card.pages import pages_for, render_pages
from processing.configs import PUBLISHED_CONFIGS, config_features
from processing.sample import is_drawn

PAGES = ("README.md", "datasheet.md")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def card(built_sample: Path) -> DatasetCard:
    return DatasetCard.load(built_sample / "README.md")


class TestYaml:
    def test_licence_gate_and_tags(self, card: DatasetCard) -> None:
        data = card.data.to_dict()
        assert data["license"] == "cc-by-nc-4.0"
        assert data["extra_gated_fields"] == {"Name": "text", "Affiliation": "text"}
        assert "non-commercial" in data["extra_gated_prompt"]
        assert data["task_categories"] == [
            "image-classification",
            "image-to-text",
            "image-feature-extraction",
        ]
        assert data["tags"] == ["pose-estimation", "3d", "image", "text", "arxiv:2406.09613"]

    def test_size_is_that_of_pose(self, card: DatasetCard) -> None:
        assert card.data.size_categories == ["n<1K"]
        sizes = {"pose": {"train": SplitSize(86_000, 0, 0)}, "captions": {"train": SplitSize(5, 0, 0)}}
        assert size_category(sizes) == "10K<n<100K"
        assert size_category({"captions": sizes["captions"]}) == "n<1K"

    @pytest.mark.parametrize(("rows", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (10**5, "100K<n<1M")])
    def test_limits_of_sizes(self, rows: int, name: str) -> None:
        assert size_category({"pose": {"train": SplitSize(rows, 0, 0)}}) == name


class TestText:
    def test_every_column_is_explained(self) -> None:
        names = {name for config in PUBLISHED_CONFIGS for name in config_features(config)}
        assert names == set(COLUMNS)
        assert all(name in config_features(config) for config, name in ELSEWHERE)

    def test_counts_columns_and_categories(self, card: DatasetCard) -> None:
        for info in card.data.dataset_info:
            line = next(
                line for line in card.text.splitlines() if line.startswith(f"| `{info['config_name']}` |")
            )
            for split in info["splits"]:
                assert f" {split['num_examples']:,} |" in line
            assert all(f"| `{feature['name']}` | " in card.text for feature in info["features"])
        for (_, name), words in ELSEWHERE.items():
            assert f"| `{name}` | {words} |" in card.text
        assert ", ".join(sorted(KNOWN_CATEGORIES)) in card.text

    def test_says_how_to_cite_and_report(self, card: DatasetCard) -> None:
        assert ImageNet3D.CITATION in card.text
        assert "https://doi.org/10.57967/hf/2461" in card.text
        assert "https://huggingface.co/datasets/ccvl/ImageNet3D/discussions" in card.text

    def test_changelog_names_this_version(self, card: DatasetCard) -> None:
        changelog = card.text.split("## Versions")[1]
        assert f"| {ImageNet3D.__version__} | " in changelog

    @pytest.mark.parametrize(
        "fact",
        [
            "200 categories",
            "over 86 thousand",
            "undergraduate students",
            "hourly wage",
            "september 2023 to may 2024",
            "april 9, 2024",
            "institutional review board",
            "irb",
            "consent",
            "revoke",
            "gpt-4v",
            "linear probing",
            "open-vocabulary pose estimation",
            "3d object detection",
            "co-occurring objects",
            "cc by-nc 4.0",
            "10.57967/hf/2461",
            "https://github.com/wufeim/imagenet3d",
            "https://wufeim.github.io/imagenet3d/index.html",
            "wufei ma",
            "guanning zeng",
            "guofeng zhang",
            "qihao liu",
            "to be determined",
            "paperswithcode",
            "older versions",
        ],
    )
    def test_datasheet_keeps_the_facts(self, built_sample: Path, fact: str) -> None:
        text = " ".join((built_sample / "datasheet.md").read_text("utf-8").split())
        assert fact in text.lower()


# --------------------------------------------------------------------------------------------------------
# What depends on the build
# --------------------------------------------------------------------------------------------------------


class TestRepository:
    def test_card_and_croissant_name_where_they_stand(self, built_sample: Path) -> None:
        pages = pages_for(built_sample, read_manifest(built_sample), "lab/Mine")
        lines = [line for line in pages["README.md"].decode().splitlines() if "ccvl/" in line]
        assert all("zip" in line for line in lines)
        assert pages["README.md"].count(b'"lab/Mine"') > 10
        assert b"ccvl/" not in pages["croissant.json"]
        assert json.loads(pages["croissant.json"])["url"] == "https://huggingface.co/datasets/lab/Mine"

    def test_at_home_they_are_what_the_build_wrote(self, built_sample: Path) -> None:
        pages = pages_for(built_sample, read_manifest(built_sample), ImageNet3D.REPOSITORY)
        for name, content in pages.items():
            assert (built_sample / name).read_bytes() == content, name

    def test_build_takes_it_and_refuses_what_is_no_repository(self, tmp_path: Path) -> None:
        raw = RawTreeWriter().sound("bed", ("a", "b"), ("v",)).folder(tmp_path / "raw")
        out = tmp_path / "out"
        for name in ("Mine", "a/b/c", "lab/with space", ""):
            assert CliRunner().invoke(main, ["build", raw, str(out), "--repo", name]).exit_code == 2
        command = ["build", raw, str(out), "--repo", "lab/Mine", "--config", "classification"]
        done = CliRunner().invoke(main, [*command, "--workers", "1"])
        assert done.exit_code == 0, done.output
        assert 'load_dataset("lab/Mine", ' in (out / "README.md").read_text("utf-8")

    def test_says_how_to_build_from_the_zip_that_is_there_today(self) -> None:
        text = page(repository="lab/Mine")
        assert "hf download ccvl/ImageNet3D imagenet3d_v1.zip --repo-type dataset" in text
        assert "build hf://datasets/ccvl/ImageNet3D/imagenet3d_v1.zip" in text


class TestPartsAndSamples:
    def test_a_part_says_of_how_many_categories_it_is(self) -> None:
        part = page(sizes={**sizes(), "categories": {"train": SplitSize(107, 0, 0)}})
        assert re.findall(r"(\d+(?: of the \d+)?)\s+categories\.", part) == ["107 of the 189"]
        whole = page(sizes={**sizes(), "categories": {"train": SplitSize(189, 0, 0)}})
        assert re.findall(r"(\d+(?: of the \d+)?)\s+categories\.", whole) == ["189"]

    def test_a_drawn_release_says_so(self, built_sample: Path, tmp_path: Path) -> None:
        warning = "These are no photographs"
        assert warning in (built_sample / "README.md").read_text("utf-8")
        assert warning not in page()
        raw = RawTreeWriter().sound("bed", ("a",), ()).zip(tmp_path / "raw.zip")
        assert not is_drawn(ImageNet3D.RawTree(raw))


class TestErrata:
    def test_none_without_corrections(self) -> None:
        assert "Errata" not in page()
        assert errata_of([]) is None

    def test_counts_and_the_newest(self) -> None:
        text = page(errata=errata_of(corrections(30)))
        section = text.split("## Errata")[1].split("\n## ")[0]
        assert "28 corrected, 1 added, 2 left out" in section
        rows = [line for line in section.splitlines() if line.startswith("| bed/")]
        assert len(rows) == 10
        assert rows[0] == "| bed/n0\\_29, 0 | azimuth, theta | 2026-03-30 | seen twice |"

    def test_a_correction_that_is_taken_back_is_no_erratum(self) -> None:
        left = correction("leave_out", 1)
        assert errata_of([left, correction("take_back", 2)]).counts == {}
        again = correction("leave_out", 3)
        assert errata_of([again, correction("take_back", 2), left]).counts == {"left out": 1}

    def test_who_agrees_with_the_release_corrects_nothing(self) -> None:
        """The tool has everybody say status and density; a later one may agree where an earlier did not."""
        released = {"object_status": "good", "dense": False}
        looked = correction("set", 1, old=released, new=released)
        assert errata_of([looked]) == Errata({}, ())
        assert "What was looked at is as the release has it." in page(errata=errata_of([looked]))
        mended = correction(
            "set", 2, old={**released, "azimuth": 1.0}, new={**released, "azimuth": 2.0, "dense": True}
        )
        errata = errata_of([looked, mended])
        assert (errata.counts, [e.change for e in errata.newest]) == ({"corrected": 1}, ["dense, azimuth"])
        agreed = correction("set", 3, old=mended.old, new=mended.old)
        assert errata_of([looked, mended, agreed]).counts == {}

    def test_words_of_others_stay_in_their_cell(self) -> None:
        why = "<script>alert(1)</script> | `x` **b** [a](https://evil.example)\n# heading"
        errata = Errata({"corrected": 1}, (Erratum("bed/a|b", 0, "theta", "2026-01-01", why),))
        body = page(errata=errata).split("\n---\n", 1)[1]
        html_page = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
        assert "<script>" not in html_page
        assert 'evil.example"' not in html_page
        row = re.search(r"<td>bed/a\|b, 0</td>(.*?)</tr>", html_page, re.DOTALL)
        assert html.unescape(re.findall("<td>(.*?)</td>", row[1])[-1]) == " ".join(why.split())

    def test_changes_since_an_earlier_version(self) -> None:
        text = page(changes=Changes("0.9.0", {"objects added": 1200, "poses changed": 3}))
        row = f"| {ImageNet3D.__version__} | Since 0.9.0: 1,200 objects added, 3 poses changed. |"
        assert row in text.split("## Versions")[1]
        assert "Since 0.9.0: nothing that is compared differs. |" in page(changes=Changes("0.9.0", {}))


def correction(operation: str, number: int, stem: str = "a", **values: Any) -> ImageNet3D.Correction:
    when = f"2026-03-{number:02d}T00:00:00Z"
    return ImageNet3D.Correction(operation, f"bed/{stem}", 0, when, "seen twice", **values)


def corrections(count: int) -> list[ImageNet3D.Correction]:
    """Of as many objects, one a day; one is corrected and left out, one left out, one added."""
    old, values = {"azimuth": 0.5, "theta": 0.25}, {"azimuth": 1.0, "theta": 2.0}
    found = [correction("set", n + 1, f"n0_{n}", old=old, new=values) for n in range(count)]
    found[3] = correction("add", 4, "n0_3", new=values)
    found[4] = correction("leave_out", 5, "n0_4")
    return [*found, correction("leave_out", 7, "n0_5")]


class TestMeaning:
    @pytest.mark.parametrize(
        "words",
        [
            "more than 90 %",
            "no person has judged",
            "modulo 2π",
            "look alike from all sides",
            "without a pose being set",
        ],
    )
    def test_card_says_what_labels_mean(self, words: str) -> None:
        assert words in " ".join(page().split())

    @pytest.mark.parametrize(
        "words",
        ["more than 90 %", "judged by no person", "modulo 2π", "look alike from all sides", "skip the pose"],
    )
    def test_datasheet_says_it_too(self, words: str) -> None:
        text = render_pages(Description(sizes(), ""))["datasheet.md"].decode()
        assert words in " ".join(text.split())

    def test_columns_that_may_be_null_say_so(self) -> None:
        for name in ("distance", "px", "py", "viewport", "cad_index", "object_status", "dense", "caption"):
            assert "null" in COLUMNS[name]
        for name in ImageNet3D.ANGLES:
            assert "2π" in COLUMNS[name]
            assert "[0" not in COLUMNS[name]

    def test_citation_is_the_authors(self) -> None:
        """Of the conference paper, as their README of December 2024 has it."""
        names = "Ma Zhang Liu Zeng Kortylewski Liu Yuille".split()
        author = re.search(r"author\s+= {(.*?)}", ImageNet3D.CITATION, re.DOTALL)[1]
        assert [name.split(",")[0] for name in " ".join(author.split()).split(" and ")] == names
        cff = yaml.safe_load((PROJECT / "CITATION.cff").read_text("utf-8"))
        for authors in (cff["authors"], cff["preferred-citation"]["authors"]):
            assert [item["family-names"] for item in authors] == names
            given = " and ".join(f"{item['family-names']}, {item['given-names']}" for item in authors)
            assert given == " ".join(author.split())
        assert ImageNet3D.CITATION in page()
        croissant = json.loads(render_pages(Description(sizes(), ""))["croissant.json"])
        assert croissant["citeAs"] == ImageNet3D.CITATION


# --------------------------------------------------------------------------------------------------------
# Links, and the page
# --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Links, pictures and the anchors that headings get on the Hub."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[tuple[str, str]] = []  # source, alternative text
        self.anchors: set[str] = set()
        self._heading: str | None = None
        self.html = render(folder, name)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a":
            self.links.append(given["href"] or "")
        elif tag == "img":
            self.pictures.append((given["src"] or "", given.get("alt") or ""))
        elif tag in ("h1", "h2", "h3"):
            self._heading = ""

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            self._heading += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3") and self._heading is not None:
            self.anchors.add(re.sub(r"[^\w -]", "", self._heading.lower()).replace(" ", "-"))
            self._heading = None


def render(folder: Path, name: str) -> str:
    """The page's body, as the Hub's Markdown gives it."""
    text = (folder / name).read_text("utf-8")
    body = text.split("\n---\n", 1)[1] if text.startswith("---\n") else text
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def relative_targets(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(file, anchor) of everything a page names inside the folder."""
    page = Page(folder, name)
    for target in (*page.links, *(source for source, _ in page.pictures)):
        parts = urlsplit(target)
        if not parts.scheme:
            yield unquote(parts.path) or name, parts.fragment


@pytest.mark.parametrize("name", PAGES)
class TestLinks:
    def test_relative_links_and_anchors_lead_somewhere(self, built_sample: Path, name: str) -> None:
        targets = list(relative_targets(built_sample, name))
        assert targets
        for file, anchor in targets:
            assert (built_sample / file).is_file(), file
            assert not anchor or anchor in Page(built_sample, file).anchors, f"{file}#{anchor}"

    def test_other_links_are_https(self, built_sample: Path, name: str) -> None:
        for link in Page(built_sample, name).links:
            parts = urlsplit(link)
            assert parts.scheme in ("", "https"), link
            assert not parts.scheme or "." in parts.netloc, link

    def test_what_is_linked_is_published(self, built_sample: Path, name: str) -> None:
        manifest = json.loads((built_sample / "imagenet3d_manifest.json").read_text("utf-8"))
        assert {file for file, _ in relative_targets(built_sample, name)} <= manifest["files"].keys()

    def test_pictures_have_words(self, built_sample: Path, name: str) -> None:
        assert all(len(words) > 10 for _, words in Page(built_sample, name).pictures)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to draw the page with")
def test_a_browser_shows_every_picture_and_no_overflow(built_sample: Path, tmp_path: Path) -> None:
    page = shutil.copytree(built_sample / "figures", tmp_path / "figures").parent / "page.html"
    check = """<script>addEventListener("load", () => {
        const shown = [...document.images].map(i => [i.getAttribute("src"), i.complete, i.naturalWidth]);
        const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
        document.body.setAttribute("data-seen", JSON.stringify({shown, wide}));
    })</script>"""
    style = "body{max-width:820px;margin:auto}img{max-width:100%}pre{overflow:auto}"
    body = render(built_sample, "README.md")
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style>{body}{check}", "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1200", "--dump-dom"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', done.stdout).group(1)))
    assert len(seen["shown"]) == len(Page(built_sample, "README.md").pictures) > 1
    assert all(complete and width for _, complete, width in seen["shown"]), seen
    assert seen["wide"] <= 0


def test_the_figure_of_the_camera_is_what_its_source_draws(built_sample: Path) -> None:
    source = PROJECT / "dataset_card/draw_camera.py"
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['draw']())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source)], capture_output=True, cwd=PROJECT, check=True
    )
    drawn = done.stdout.decode("utf-8")
    assert drawn == source.with_name("camera.svg").read_text("utf-8")
    assert drawn == (built_sample / "figures/camera.svg").read_text("utf-8")
