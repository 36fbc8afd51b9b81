"""What is checked of a built folder."""
