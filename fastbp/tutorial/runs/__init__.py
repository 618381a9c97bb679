"""What the tutorial computes on this machine: the exclusive or, its speed, the ways to fail, the digits."""
