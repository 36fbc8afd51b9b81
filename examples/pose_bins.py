"""Poses as classes: each of azimuth, elevation and theta is one of 40 bins around the circle.

The protocol of ImageNet3D's baselines (Ma et al., NeurIPS 2024): bin k holds [k, k + 1) · 2π/40, and what is
predicted is the centre of the best one.
"""

import math

import torch
from torch import nn

BINS = 40
WIDTH = 2 * math.pi / BINS  # radians
LOGITS = 3 * BINS  # of azimuth, elevation and theta, one after the other


def to_angles(logits: torch.Tensor) -> torch.Tensor:
    """Logits (..., 120) -> azimuth, elevation and theta (..., 3) in radians."""
    return (logits.unflatten(-1, (3, BINS)).argmax(-1).double() + 0.5) * WIDTH


def to_targets(angles: torch.Tensor, spread: float) -> torch.Tensor:
    """Angles (n, 3) in radians, any range -> what each bin should have of them, (n, 3, 40).

    Args:
        spread: how far an angle counts for the bins about its own too, radians: about the standard deviation
            of a von Mises distribution on the circle. 0 is the protocol, all for one bin. Few examples teach
            far more with some, for a neighbour is nearly right.
    """
    if not spread:
        bins = (angles / WIDTH).floor().long() % BINS
        return nn.functional.one_hot(bins, BINS).float()
    centres = (torch.arange(BINS, device=angles.device) + 0.5) * WIDTH
    return ((angles.unsqueeze(-1) - centres).cos() / spread**2).softmax(-1).float()


def pose_loss(logits: torch.Tensor, angles: torch.Tensor, spread: float) -> torch.Tensor:
    """Cross entropy of logits (n, 120) at angles (n, 3), summed over the three, averaged over the objects."""
    likely = logits.float().unflatten(-1, (3, BINS)).log_softmax(-1)
    return -(to_targets(angles, spread) * likely).sum((-1, -2)).mean()
