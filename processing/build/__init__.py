"""Where the shards come from: the plan, the shards of pictures, meshes and categories, who owns a file."""
