"""Networks of timm by name, the options that every recipe has, and what a network says of many objects."""

import shlex
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from job import Job
from objects import Objects, loader
from torch import nn
from torch.utils.data import BatchSampler


def at_least_one(text: str) -> int:
    """A number of an option that makes no sense below 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def recipe_options(description: str) -> ArgumentParser:
    """The options that every recipe has; help shows their defaults."""
    options = ArgumentParser(
        description=description.splitlines()[0], formatter_class=ArgumentDefaultsHelpFormatter
    )
    options.add_argument("dataset", help="a repository of the Hub, or a built folder")
    options.add_argument("--config", default="object_centric", help="one whose pictures show one object each")
    options.add_argument("--model", default="resnet50", help="any of timm.list_models()")
    options.add_argument("--weights", help="'pretrained' for timm's, or a file of them; random if not given")
    options.add_argument(
        "--size", type=at_least_one, default=224, help="of a picture that the network sees, pixels"
    )
    options.add_argument("--workers", type=int, default=2, help="of each process, which decode pictures")
    options.add_argument("--seed", type=int, default=0, help="of weights, order and mirroring")
    options.add_argument("--out", type=Path, default=Path("run"), help="folder of all that is written")
    return options


def scoring(predictions: Path, options: Namespace) -> str:
    """The command that scores predictions on the dataset that they are of."""
    on_disk = Path(options.dataset).exists()
    dataset = options.dataset if on_disk else f"hf://datasets/{options.dataset}"
    words = ["imagenet3d", "evaluate", str(predictions), "--dataset", dataset, "--config", options.config]
    return shlex.join(words)


class Network(nn.Module):
    """A network of timm that takes pictures as `Objects` gives them."""

    def __init__(self, options: Namespace, outputs: int):
        """Make it; of given weights, all but the last layer are used.

        Args:
            options: `model`, `weights` and `size` of `recipe_options`.
            outputs: how many numbers it gives; 0 for the features before the last layer.

        Raises:
            SystemExit: there is no such file of weights.
        """
        super().__init__()
        known = timm.get_pretrained_cfg(options.model)
        kind = {"img_size": options.size} if known and known.fixed_input_size else {}
        if options.weights not in (None, "pretrained"):
            if not Path(options.weights).is_file():
                raise SystemExit(
                    f"--weights {options.weights}: no such file; give one, or 'pretrained' for timm's"
                )
            kind["pretrained_cfg_overlay"] = {"file": options.weights}
        pretrained = options.weights is not None
        self.model = timm.create_model(options.model, pretrained=pretrained, num_classes=outputs, **kind)
        usual = timm.data.resolve_model_data_config(self.model)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(usual[name]).reshape(3, 1, 1), persistent=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, size, size) of uint8 -> outputs (n, outputs)."""
        return self.model(self.normalized(pictures))

    def layer(self, pictures: torch.Tensor, index: int) -> torch.Tensor:
        """What a block or stage gives, from 0 or back from -1, averaged over positions: (n, channels).

        Raises:
            SystemExit: there is no such block or stage.
        """
        count = len(self.model.feature_info)
        if not -count <= index < count:
            raise SystemExit(f"there is no layer {index}: give --layer {-count} to {count - 1}")
        (found,) = self.model.forward_intermediates(
            self.normalized(pictures), indices=[index % count], intermediates_only=True
        )
        return found.mean((-2, -1))

    def normalized(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures as the weights know them, float32."""
        return (pictures.float() / 255 - self.mean) / self.std


@torch.inference_mode()
def outputs_of(
    job: Job,
    call: Callable[[torch.Tensor], torch.Tensor],
    objects: Objects,
    indices: range,
    options: Namespace,
) -> torch.Tensor:
    """What a network says of objects (len(indices), outputs), float32 on the CPU, in every process.

    Args:
        call: from pictures on the device to outputs (n, outputs).
        indices: of the objects, as `Objects` counts them; each process does its part.
    """
    own = BatchSampler(indices[job.rank :: job.world_size], options.batch_size, drop_last=False)
    parts = []
    for batch in job.progress(iterable=loader(objects, own, options.workers), unit="batch", desc="predict"):
        with job.autocast():
            parts.append(call(batch["picture"].to(job.device)).float().cpu())
    gathered = job.gathered(torch.cat(parts) if parts else None)
    outputs = torch.empty(len(indices), gathered[0].shape[1])
    for rank, part in enumerate(gathered):
        if part is not None:
            outputs[rank :: job.world_size] = part
    return outputs
