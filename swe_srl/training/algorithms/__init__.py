"""What differs between algorithms: what one update is made from, and the loss on it."""
