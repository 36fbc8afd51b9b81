"""The paper's numbers: predictions held against the truth of a built folder."""
