"""What is done with ImageNet3D, on top of what `ImageNet3D.py` says the data is: one folder a command.

raw -> records -> rows -> shards -> card. In each folder `command.py` holds what the command line calls.
"""
