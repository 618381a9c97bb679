"""Formulas in NumPy that the reference computes with and the engine has twins of."""
