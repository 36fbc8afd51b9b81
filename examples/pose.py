"""Pose of objects from a network of timm that is trained as a whole, on all categories or on the known ones.

    python examples/pose.py ccvl/ImageNet3D --weights pretrained --out run
    imagenet3d evaluate run/predictions.parquet --dataset hf://datasets/ccvl/ImageNet3D

`--train-on known` is the open-vocabulary task: the other categories are never trained on, and the lines
"known" and "unknown" of the report are its figures. Rows are of object_centric in both cases, as in the
authors' protocol: its crops show one object each, and its column `known` splits them as open_vocab_known
and open_vocab_unknown do.

On several GPUs: torchrun --nproc-per-node 8 examples/pose.py ... Run again after an interruption, it goes
on.
"""

from fit import fit, training_options
from job import start_job
from networks import Network, outputs_of, scoring
from objects import Objects, load_rows, write_predictions
from pose_bins import LOGITS, pose_loss, to_angles


def main() -> None:
    """Train, predict, write."""
    parser = training_options(__doc__)
    parser.add_argument("--train-on", choices=["all", "known"], default="all", help="categories of train")
    options = parser.parse_args()

    with start_job(options.seed) as job:
        train = load_rows(options.dataset, options.config, "train")
        if options.train_on == "known":
            indices = [index for index, known in enumerate(train["known"]) if known]
            if not indices:
                raise SystemExit("train has no object of a known category: leave out --train-on known")
            train = train.select(indices)
        validation = load_rows(options.dataset, options.config, "validation")
        network = Network(options, LOGITS).to(job.device)

        fit(
            job,
            network,
            train,
            lambda outputs, batch: pose_loss(outputs, batch["angles"], options.spread),
            options,
        )

        objects = Objects(validation, options.size)
        logits = outputs_of(job, network, objects, range(len(validation)), options)
        if job.first:
            path = options.out / "predictions.parquet"
            write_predictions(path, validation, to_angles(logits))
            print(scoring(path, options))


if __name__ == "__main__":
    main()
