"""What the figures in README.md and docs/ come from; `python -m benchmarks` runs all."""
