"""The compiled loops, each named after what it computes."""
