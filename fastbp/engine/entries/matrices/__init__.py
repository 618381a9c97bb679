"""Products of matrices of the caller's, for anybody's compiled code."""
