"""`fastbp demo`: both implementations on real digits."""
