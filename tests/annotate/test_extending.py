"""docs/extending.md, run as it stands: from pictures, boxes and meshes to rows beside those of ImageNet3D."""

import csv
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.annotating import Served, body

import ImageNet3D
from processing.__main__ import main
from processing.annotate.queue import Queue
from processing.preview.sources import open_source

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def own(sample_folder, tmp_path, monkeypatch):
    """A working folder with twenty pictures, their boxes and two meshes: what the page begins with."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "meshes").mkdir()
    source = open_source(str(sample_folder))
    usable = (p for p in source.pictures() if (sample_folder / f"images/{p.image_id}.JPEG").is_file())
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["file", "x1", "y1", "x2", "y2"])
        for number, picture in zip(range(20), usable, strict=False):
            name = f"{number:04d}.jpg"
            shutil.copy(sample_folder / f"images/{picture.image_id}.JPEG", tmp_path / "photos" / name)
            for item in picture.objects:
                lines.writerow([name, *item.bbox])
    meshes = sorted((sample_folder / "CAD").glob("*/*.off"))
    for mesh, name in zip(meshes, ("quadcopter.off", "hexacopter.off"), strict=False):
        shutil.copy(mesh, tmp_path / "meshes" / name)
    assert len(list((tmp_path / "photos").iterdir())) == 20
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_all_poses(tree, file):
    """What a person does with the tool."""
    served, queue = Served(tree, file), Queue(tree)
    try:
        for number, item in enumerate(queue.items):
            assert not item.annotation.posed
            cad_index = number % 2 + 1
            assert (
                served.save(body(queue, number, values={"azimuth": number / 10, "cad_index": cad_index}))
                == 200
            )
    finally:
        served.end()
    return len(queue.items)


def test_the_page_takes_one_from_pictures_to_rows(own, built_sample):
    names: dict = {}
    poses = 0
    ran = []
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text.replace("ccvl/ImageNet3D", os.fspath(built_sample)), names)
            continue
        for command in text.strip().splitlines():
            program, name, *arguments = shlex.split(command)
            assert program == "imagenet3d"
            ran.append(name)
            if name == "annotate":
                poses = make_all_poses(arguments[0], own / arguments[-1])
            else:
                result = CliRunner().invoke(main, [name, *arguments, "--workers", "1"])
                assert result.exit_code == 0, result.output
                assert name != "verify" or "all is as it was built" in result.output
    assert ran == ["annotate", "build", "verify"]
    drones, published, both = names["drones"], names["published"], names["both"]
    assert len(both) == len(published) + len(drones)
    label = both.features["category"]
    assert label.names == [*ImageNet3D.CATEGORIES, "drone"]
    assert {label.int2str(row) for row in both["category"]} == {
        image_id.partition("/")[0] for image_id in both["image_id"]
    }
    validation = names["load_dataset"]("drones-built", "pose", split="validation")
    assert len(drones) + len(validation) == poses >= 20
    assert set(drones["cad_index"]) == {1, 2}
    assert len(names["load_dataset"]("drones-built", "cad", split="train")) == 2
    assert len(names["load_dataset"]("drones-built", "open_vocab_unknown", split="validation")) == len(
        validation
    )
