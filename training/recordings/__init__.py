"""A lab's own recordings as data sets: cut into clips, annotated by two people, read by the same readers."""
