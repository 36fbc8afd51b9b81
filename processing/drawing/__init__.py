"""A mesh on a picture, without the dataset: reading, rasterizing, outlines, layers, thumbnails."""
