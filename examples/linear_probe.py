"""Linear probe: how much of an object's pose is in the frozen features of a network.

    python examples/linear_probe.py ccvl/ImageNet3D --model vit_base_patch14_dinov2 --weights pretrained
    imagenet3d evaluate run/predictions.parquet --dataset hf://datasets/ccvl/ImageNet3D

Three linear classifiers, of azimuth, elevation and theta, are trained on the features; only these. As in
the authors' protocol: 40 bins around the circle, SGD with momentum, 5 epochs of batches of 128, a cosine
schedule, mirroring at random, and classifiers of thirteen learning rates side by side. The rate is chosen
by accuracy at π/6 on validation itself: what is reported is the best of thirteen.

Features are computed once, of each picture as it is and mirrored, and kept in a file of the folder `out`
that is named by all that they depend on. On several GPUs (torchrun) each process computes its part of them.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import datasets
import numpy as np
import timm
import torch
from job import Job, load, save, start_job
from networks import Network, at_least_one, outputs_of, recipe_options, scoring
from objects import Objects, load_rows, write_predictions
from pose_bins import LOGITS, pose_loss, to_angles
from tabulate import tabulate
from torch import nn

from ImageNet3D import ANGLES
from processing.geometry import flip_viewpoint, rotation_error, rotation_from_viewpoint

# Of the authors' probes.
RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


def features_file(options: argparse.Namespace, rows: dict[str, datasets.Dataset]) -> Path:
    """Where the features are kept: another network, layer, size or dataset is another file."""
    weights = options.weights
    if weights is None:
        weights = f"random, seed {options.seed}"
    elif weights != "pretrained":
        weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    # A dataset's fingerprint is of the files that it was loaded into, and of what was done with it since.
    data = [part._fingerprint for part in rows.values()]
    what = [options.model, weights, options.layer, options.size, options.config, data, timm.__version__]
    return options.out / f"features-{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}.pt"


def compute_features(
    job: Job, options: argparse.Namespace, rows: dict[str, datasets.Dataset]
) -> dict[str, torch.Tensor]:
    """The features (N, channels) of train, of train mirrored and of validation."""
    network = Network(options, outputs=0).to(job.device).eval()
    call = network if options.layer is None else lambda pictures: network.layer(pictures, options.layer)
    train, validation = (Objects(rows[split], options.size) for split in ("train", "validation"))
    both = outputs_of(job, call, train, range(len(train)), options)
    plain, mirrored = both.split(len(rows["train"]))
    seen = outputs_of(job, call, validation, range(len(rows["validation"])), options)
    return {"train": plain, "train mirrored": mirrored, "validation": seen}


def train_probes(
    job: Job, options: argparse.Namespace, features: dict[str, torch.Tensor], angles: np.ndarray
) -> nn.ModuleList:
    """For each learning rate the three classifiers, as one linear layer.

    Args:
        features: of `compute_features`.
        angles: (N, 3) of train: azimuth, elevation and theta in radians.
    """
    plain, mirrored = (features[name].to(job.device) for name in ("train", "train mirrored"))
    turned = torch.from_numpy(np.stack(flip_viewpoint(*angles.T), axis=1)).to(job.device)
    straight = torch.from_numpy(angles).to(job.device)
    probes = nn.ModuleList(nn.Linear(plain.shape[1], LOGITS) for _ in options.lr).to(job.device)
    for probe in probes:
        nn.init.normal_(probe.weight, std=0.01)
        nn.init.zeros_(probe.bias)
    groups = [{"params": probe.parameters(), "lr": lr} for probe, lr in zip(probes, options.lr, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    steps = options.epochs * math.ceil(len(plain) / options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in job.progress(iterable=range(options.epochs), unit="epoch", desc="probes"):
        flip = torch.rand(len(plain), 1).to(job.device) < 0.5
        given, wanted = torch.where(flip, mirrored, plain), torch.where(flip, turned, straight)
        for batch in torch.randperm(len(plain)).to(job.device).split(options.batch_size):
            # The sum's gradients are each probe's own: none sees the others.
            losses = [pose_loss(probe(given[batch]), wanted[batch], spread=0) for probe in probes]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    return probes


def angles_of(rows: datasets.Dataset) -> np.ndarray:
    """Azimuth, elevation and theta of rows (N, 3), radians."""
    return np.stack([rows[name] for name in ANGLES], axis=1)


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = recipe_options(__doc__)
    parser.add_argument(
        "--layer",
        type=int,
        help="a block or stage, from 0 or back from -1, averaged over positions; without it "
        "the features that the network's own last layer gets",
    )
    parser.add_argument(
        "--epochs", type=at_least_one, default=5, help="times that the objects of train are seen"
    )
    parser.add_argument("--batch-size", type=at_least_one, default=128, help="objects")
    parser.add_argument("--lr", type=float, nargs="+", default=RATES, help="learning rates, side by side")
    return parser.parse_args()


def main() -> None:
    """Compute the features or find them, train the probes, keep the best one's predictions."""
    options = parse_options()
    with start_job(options.seed) as job:
        rows = {split: load_rows(options.dataset, options.config, split) for split in ("train", "validation")}
        kept = features_file(options, rows)
        if not job.agreed(kept.exists()):
            features = compute_features(job, options, rows)
            if job.first:
                save(kept, features)
        if not job.first:
            return  # the rest is a matter of seconds for one process
        features = load(kept)

        torch.manual_seed(options.seed)  # whether the features were there or not
        probes = train_probes(job, options, features, angles_of(rows["train"]))
        true = rotation_from_viewpoint(*angles_of(rows["validation"]).T)
        given = features["validation"].to(job.device)
        found = [to_angles(probe(given)).cpu() for probe in probes]
        errors = [rotation_error(rotation_from_viewpoint(*angles.numpy().T), true) for angles in found]
        figures = [
            (np.mean(e < np.pi / 6), np.mean(e < np.pi / 18), np.degrees(np.median(e))) for e in errors
        ]
        table = [(lr, *numbers) for lr, numbers in zip(options.lr, figures, strict=True)]
        print(
            tabulate(table, ["learning rate", "π/6", "π/18", "median °"], floatfmt=("g", ".3f", ".3f", ".1f"))
        )

        best = max(range(len(found)), key=lambda i: figures[i][0])
        path = options.out / "predictions.parquet"
        write_predictions(path, rows["validation"], found[best])
        print(f"those of {options.lr[best]:g} are written:")
        print(scoring(path, options))


if __name__ == "__main__":
    main()
