"""A synthetic release to try things on, in which picture, mesh, pose and box agree."""
