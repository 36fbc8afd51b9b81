"""Sources of the dataset card: its template, the datasheet, the figure of the camera."""
