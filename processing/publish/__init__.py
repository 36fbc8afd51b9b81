"""A built folder on the Hub."""
