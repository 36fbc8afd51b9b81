"""What is done with ImageNet3D: one module a stage, on top of what `ImageNet3D.py` says the data is.

raw -> records -> rows -> shards -> card: `plan` decides which picture goes where, `shards` writes one shard,
`ledger` keeps what was found and balances the books, `card` describes the result, `build` runs them in turn.
"""
