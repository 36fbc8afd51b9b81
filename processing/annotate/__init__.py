"""The web tool: correct poses and make them, by several people, and say how far they agree."""
