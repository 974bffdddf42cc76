"""Files of other tools → Trajectories. A format is one module with `sniff` and `read`, and one line in FORMATS."""
