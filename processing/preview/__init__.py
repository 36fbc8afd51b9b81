"""The page that shows what the annotations say, drawn on the pictures."""
