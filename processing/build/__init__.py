"""Where the shards come from: the plan, the shards of pictures, meshes and categories, who owns a file."""

# Bytes of pictures: some 600 rows of the v1.0 release, small enough that several readers mix categories well.
# Here, where help can show it without importing anything.
DEFAULT_SHARD_SIZE = "48MB"
