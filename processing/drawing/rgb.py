"""One way to make RGB of any picture, for all who draw on one, crop it or show it."""

import numpy as np
import PIL.Image


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """The same picture in RGB: itself, if it is that.

    As training code gets it from Pillow's `convert("RGB")`: grey, CMYK and palette pictures are converted,
    transparency is dropped and the stored colours are shown, colour profiles are ignored. Only of grey
    pictures of 16 bits, which Pillow would cut off at 255, the upper eight bits are used.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
