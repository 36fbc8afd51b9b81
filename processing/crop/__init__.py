"""How a crop is made: its pixels, its row in `object_centric`, and the command that writes crops as files."""
