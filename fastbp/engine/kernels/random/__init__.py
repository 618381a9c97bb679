"""What draws random numbers in the middle of a step."""
