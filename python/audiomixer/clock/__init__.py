"""Time: the pacer, which is the only clock, the running mixes that it wakes, and work that may wait."""
