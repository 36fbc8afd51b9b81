"""Category and pose of objects, from one network of timm with two heads that are trained together.

    python examples/pose_and_class.py ccvl/ImageNet3D --weights pretrained --out run
    imagenet3d evaluate run/predictions.parquet --dataset hf://datasets/ccvl/ImageNet3D

The predictions hold a category beside the pose, so that the report has the joint figures: an object counts
where both are right. On several GPUs: torchrun --nproc-per-node 8 examples/pose_and_class.py ... Run again
after an interruption, it goes on.
"""

from collections.abc import Mapping

import torch
from fit import fit, training_options
from job import start_job
from networks import Network, outputs_of, scoring
from objects import Objects, load_rows, write_predictions
from pose_bins import LOGITS, pose_loss, to_angles
from torch import nn


def main() -> None:
    """Train, predict, write."""
    parser = training_options(__doc__)
    parser.add_argument("--class-weight", type=float, default=1.0, help="of the loss of the category")
    options = parser.parse_args()

    with start_job(options.seed) as job:
        train = load_rows(options.dataset, options.config, "train")
        validation = load_rows(options.dataset, options.config, "validation")
        categories = train.features["category"].num_classes
        network = Network(options, LOGITS + categories).to(job.device)

        def loss_of(outputs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
            pose, category = outputs.split([LOGITS, categories], dim=1)
            wrong_class = nn.functional.cross_entropy(category, batch["category"])
            return pose_loss(pose, batch["angles"], options.spread) + options.class_weight * wrong_class

        fit(job, network, train, loss_of, options)

        objects = Objects(validation, options.size)
        outputs = outputs_of(job, network, objects, range(len(validation)), options)
        if job.first:
            pose, category = outputs.split([LOGITS, categories], dim=1)
            path = options.out / "predictions.parquet"
            write_predictions(path, validation, to_angles(pose), category.argmax(1))
            print(scoring(path, options))


if __name__ == "__main__":
    main()
