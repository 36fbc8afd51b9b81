"""What does a raw release really contain, held against what this code assumes of it?"""
