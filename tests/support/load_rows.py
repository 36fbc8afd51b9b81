"""Loads configs in one of the ways users do and writes their rows as JSON, under any supported `datasets`.

    python load_rows.py JOBS

JOBS is a JSON file: a list of {"way", "path", "config", "streaming", "captions", "cache", "out"}, of a
repository "revision", of a raw release "corrections". Rows go to `out` as
{split: [row]}: pictures as the checksum of their bytes and, decoded, their size; labels as names; meshes as
the checksum of their vertices, which must be the same in what `datasets` makes of them where it knows meshes.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Image, load_dataset

Mesh = getattr(datasets, "Mesh", None)  # not in old versions


def load(
    way: str,
    path: str,
    config: str,
    streaming: bool,
    captions: str | None,
    cache: str,
    revision: str | None = None,
    corrections: str | None = None,
) -> Any:
    """{split: dataset}, decoded as users get it."""
    corrected = {"corrections": corrections} if corrections else {}
    if way == "script":  # datasets < 4
        script = str(Path(__file__).parents[2] / "ImageNet3D.py")
        options = {"data_dir": path, "captions": captions, "trust_remote_code": True, **corrected}
        return load_dataset(script, config, streaming=streaming, cache_dir=cache, **options)
    if way == "builder":
        return _from_builder(path, config, streaming, captions, cache, corrected)
    # a folder or a repository
    return load_dataset(path, config, streaming=streaming, cache_dir=cache, revision=revision)


def _from_builder(
    path: str, config: str, streaming: bool, captions: str | None, cache: str, corrected: dict[str, str]
) -> Any:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from ImageNet3D import ImageNet3D

    options = {"captions": captions, "cache_dir": cache, **corrected}
    builder = ImageNet3D(config_name=config, data_dir=path or None, **options)
    if streaming:
        return builder.as_streaming_dataset()
    builder.download_and_prepare(num_proc=2)
    return builder.as_dataset()


def rows_of(dataset: Any) -> list[dict[str, Any]]:
    """The rows of a split, as plain JSON."""
    pictured = "image" in dataset.features
    stored = dataset.cast_column("image", Image(decode=False)) if pictured else dataset
    features = dataset.features
    rows = []
    for row, raw in zip(dataset, stored, strict=True):
        plain = {name: _plain(features[name], value) for name, value in row.items() if name != "image"}
        if pictured:
            plain["decoded"] = list(row["image"].size)
            plain["image"] = hashlib.sha256(raw["image"]["bytes"]).hexdigest()
        rows.append(plain)
    if "mesh" in features and Mesh is not None:
        for plain, row in zip(rows, dataset.cast_column("mesh", Mesh()), strict=True):
            mesh = row["mesh"].to_mesh()
            assert [len(mesh.vertices), len(mesh.faces)] == [plain["num_vertices"], plain["num_faces"]]
            checksum = hashlib.sha256(mesh.vertices.astype("<f4").tobytes()).hexdigest()
            assert checksum == plain["mesh"]["vertices"]
    return rows


def positions(glb: bytes) -> bytes:
    """The vertices in a GLB file of one mesh, as they lie there: float32, x, y, z."""
    start = 20 + int.from_bytes(glb[12:16], "little")
    described = json.loads(glb[20:start])
    accessor = described["accessors"][described["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    view = described["bufferViews"][accessor["bufferView"]]
    begin = start + 8 + view.get("byteOffset", 0)
    return glb[begin : begin + 12 * accessor["count"]]


def _plain(feature: Any, value: Any) -> Any:
    if isinstance(value, dict) and "path" in value:
        return {"path": value["path"], "vertices": hashlib.sha256(positions(value["bytes"])).hexdigest()}
    if isinstance(feature, ClassLabel):
        return None if value is None else feature.int2str(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        fields = feature[0] if isinstance(feature, list) else feature.feature
        return [{name: _plain(fields[name], item) for name, item in entry.items()} for entry in value]
    return value


def main() -> None:
    """Do the jobs."""
    datasets.disable_progress_bars()
    for job in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        out = Path(job.pop("out"))
        loaded = load(**job)
        out.write_text(json.dumps({split: rows_of(rows) for split, rows in loaded.items()}), "utf-8")


if __name__ == "__main__":
    main()
