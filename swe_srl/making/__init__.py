"""A real project → validated Tasks."""
