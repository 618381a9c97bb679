"""What the checks of the two-layer functions have in common in Python and in compiled code."""

# How far an activation may be from max(0, z1), relative to 1 + |z1|: far beyond any rounding, since what is
# looked for is another array in its place.
FORWARD_TOLERANCE = 1e-3
