"""What is written about the data: the card, what its columns mean, Croissant, figures and plots."""
