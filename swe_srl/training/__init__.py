"""Steps → Checkpoint. `loop.py` is the algorithm on one page; `algorithms/` says what differs between SFT and SRL."""
