"""Products of bfloat16 numbers, and what they read."""
