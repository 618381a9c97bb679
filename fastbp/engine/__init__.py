"""Everything jitted. Kernels assume clean input; they know flat arrays and integers, and no model."""
