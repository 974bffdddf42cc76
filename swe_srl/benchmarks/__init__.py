"""Where Tasks come from."""
