"""The files that the command writes: none replaces what is no earlier output of its own; the Hub's entry."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from support.hub import serve
from support.raw_tree import RawTreeWriter
from support.scored import command, perfect, write

import ImageNet3D
from processing.build.command import build
from processing.evaluate.choices import ChoiceError
from processing.evaluate.leaderboard import TASKS, submission

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OUTPUTS = {"--json": "figures.json", "--plot": "accuracy.png", "--eval-results": "results.yaml"}


def its_commit(option):
    return ["--revision", COMMIT] if option == "--eval-results" else []


@pytest.fixture
def predictions(dataset, tmp_path):
    named = [row | {"category": "bed"} for row in perfect(dataset)]
    return write(tmp_path / "predictions.jsonl", named)


@pytest.mark.parametrize("option", OUTPUTS)
@pytest.mark.parametrize("target", ["predictions.jsonl", "README.md", "other.png", "other.yaml"])
def test_an_output_replaces_nothing_else(dataset, predictions, tmp_path, option, target):
    path = tmp_path / (target if option != "--plot" else Path(target).with_suffix(".png"))
    if not path.exists():
        path.write_text("mine\n")
    before = path.read_bytes()
    result = command(predictions, dataset, option, path, *its_commit(option))
    assert result.exit_code == 2, result.output
    assert f"{path} exists and is no earlier output of this command" in result.output
    assert path.read_bytes() == before
    assert "π/6" not in result.output  # refused before the work


@pytest.mark.parametrize(("option", "name"), OUTPUTS.items())
def test_an_earlier_output_is_replaced(dataset, predictions, tmp_path, option, name):
    pytest.importorskip("matplotlib")
    for _ in range(2):
        result = command(predictions, dataset, option, tmp_path / name, *its_commit(option))
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("ending", ["svg", "pdf"])
def test_plots_of_every_kind_are_known_again(dataset, predictions, tmp_path, ending):
    pytest.importorskip("matplotlib")
    for _ in range(2):
        assert command(predictions, dataset, "--plot", tmp_path / f"accuracy.{ending}").exit_code == 0


def test_an_output_of_another_kind_is_not_replaced(dataset, predictions, tmp_path):
    assert command(predictions, dataset, "--json", tmp_path / "figures").exit_code == 0
    result = command(predictions, dataset, "--eval-results", tmp_path / "figures", "--revision", COMMIT)
    assert result.exit_code == 2
    json.loads((tmp_path / "figures").read_text())


def test_two_outputs_are_two_files(dataset, predictions, tmp_path):
    same = ["--json", tmp_path / "a", "--eval-results", tmp_path / "b/../a", "--revision", COMMIT]
    result = command(predictions, dataset, *same)
    assert result.exit_code == 2
    assert "two are one file" in result.output


# The entry that the Hub's leaderboards read


def entries_of(path):
    from huggingface_hub import parse_eval_result_entries

    return {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(path.read_text()))}


def test_the_entry_is_what_the_hub_s_own_classes_read(dataset, predictions, tmp_path):
    path = tmp_path / ".eval_results/imagenet3d.yaml"
    options = ["--revision", COMMIT, "--source", "https://example.org/paper", "--json", tmp_path / "a.json"]
    result = command(predictions, dataset, "--eval-results", path, *options)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "a.json").read_text())
    entries = entries_of(path)
    assert {task: entry.value for task, entry in entries.items()} == {
        "pose_pi_6": 1.0,
        "pose_pi_18": 1.0,
        "pose_and_class_pi_6": 0.5,
        "pose_and_class_pi_18": 0.5,
    }
    entry = entries["pose_and_class_pi_6"]
    assert (entry.dataset_id, entry.dataset_revision) == (ImageNet3D.REPOSITORY, COMMIT)
    assert entry.source_url == "https://example.org/paper"
    assert entry.date == figures["date"]
    for text in ("right category", "config pose", "split validation", "population benchmark", "4 objects"):
        assert text in entry.notes
    assert figures["population"]["keys_sha256"] in entry.notes


def test_a_snapshot_of_the_hub_s_cache_tells_repository_and_commit(dataset, predictions, tmp_path):
    snapshot = tmp_path / f"datasets--lab--Cars/snapshots/{COMMIT}"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(dataset)
    result = command(predictions, snapshot, "--eval-results", tmp_path / "a.yaml")
    assert result.exit_code == 0, result.output
    entry = entries_of(tmp_path / "a.yaml")["pose_pi_6"]
    assert (entry.dataset_id, entry.dataset_revision) == ("lab/Cars", COMMIT)


def test_a_snapshot_is_known_from_inside_and_through_a_link(tmp_path, monkeypatch):
    snapshot = tmp_path / f"datasets--lab--Cars/snapshots/{COMMIT}"
    (snapshot / "pose").mkdir(parents=True)
    (tmp_path / "link").symlink_to(snapshot)
    monkeypatch.chdir(snapshot)
    for dataset in (".", tmp_path / "link", "pose/.."):
        about = submission(dataset, None, None, None)
        assert (about.repository, about.revision) == ("lab/Cars", COMMIT)
    assert submission(".", None, COMMIT.upper(), None).revision == COMMIT
    with pytest.raises(ChoiceError, match="none is not 40"):
        submission("s3://a/bucket", None, None, None)  # not below this folder


@pytest.mark.parametrize("option", ["--repo", "--revision", "--source"])
def test_what_is_about_the_entry_needs_it(dataset, predictions, option):
    result = command(predictions, dataset, option, "lab/Cars")
    assert result.exit_code == 2, result.output
    assert "are about the entry: give --eval-results too" in " ".join(result.output.split())


@pytest.mark.parametrize(("name", "message"), [("bad name", "Repo id must"), ("cars", "name the owner too")])
def test_a_name_that_is_no_repository_s_is_wrong_usage(dataset, predictions, tmp_path, name, message):
    options = ["--eval-results", tmp_path / "a.yaml", "--revision", COMMIT, "--repo", name]
    result = command(predictions, dataset, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "none is not 40 hexadecimal digits; give --revision"),
        (["--revision", "main"], "main is not 40 hexadecimal digits; give --revision"),
        (["--revision", COMMIT, "--population", "all"], "--eval-results is for"),
        (["--revision", COMMIT, "--split", "train"], "--eval-results is for"),
        (["--revision", COMMIT, "--threshold", "20"], "--eval-results is for"),
        (["--revision", COMMIT, "--config", "open_vocab_known"], "--eval-results is for"),
        (["--revision", COMMIT, "--source", "my paper"], "my paper is no link"),
    ],
)
def test_what_no_leaderboard_can_use_is_wrong_usage(dataset, predictions, tmp_path, options, message):
    result = command(predictions, dataset, "--eval-results", tmp_path / "a.yaml", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "a.yaml").exists()


def test_an_old_huggingface_hub_is_told(dataset, predictions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", ModuleType("huggingface_hub"))
    result = command(predictions, dataset, "--eval-results", tmp_path / "a.yaml", "--revision", COMMIT)
    assert result.exit_code == 2
    assert "pip install -U huggingface_hub" in result.output


def test_the_dataset_s_side_names_the_same_tasks():
    content = yaml.safe_load((Path(ImageNet3D.__file__).parent / "dataset_card/eval.yaml").read_text("utf-8"))
    assert set(content) == {"name", "description", "evaluation_framework", "tasks"}
    assert content["evaluation_framework"] == "imagenet3d"
    tasks = {task["id"]: (task["config"], task["split"]) for task in content["tasks"]}
    assert tasks == {
        **{f"pose_{limit}": ("pose", "validation") for limit in ("pi_6", "pi_18")},
        **{f"pose_and_class_{limit}": ("pose", "validation") for limit in ("pi_6", "pi_18")},
        **{f"open_vocab_pose_{limit}": ("open_vocab_unknown", "validation") for limit in ("pi_6", "pi_18")},
    }
    assert {config for config, _ in tasks.values()} <= set(TASKS)


def test_the_hub_is_asked_for_the_commit(tmp_path):
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).sound("car", ("a", "b"), ("v", "w"))
    build(tree.folder(tmp_path / "raw"), tmp_path / "built", configs=["pose", "object_centric"], workers=1)
    # In a process of its own: huggingface_hub reads where the Hub is when it is imported.
    with serve(tmp_path / "built") as hub:
        done = subprocess.run(
            [sys.executable, "-c", _SCORE_FROM_THE_HUB],
            env=hub.environment(tmp_path / "cache") | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    entry = entries_of(tmp_path / "results.yaml")["pose_pi_6"]
    assert (entry.dataset_id, entry.value) == ("ccvl/ImageNet3D", 1.0)
    assert re.fullmatch("[0-9a-f]{40}", entry.dataset_revision)
    assert "open_vocab" not in entry.notes


_SCORE_FROM_THE_HUB = """
from datasets import load_dataset
from processing.__main__ import main
rows = load_dataset("ccvl/ImageNet3D", "object_centric", split="validation", columns=[
    "image_id", "object_index", "azimuth", "elevation", "theta"])
rows.to_parquet("predictions.parquet")
main(["evaluate", "predictions.parquet", "--dataset", "hf://datasets/ccvl/ImageNet3D",
      "--eval-results", "results.yaml"])
"""
