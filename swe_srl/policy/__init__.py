"""A language model as something that acts."""
