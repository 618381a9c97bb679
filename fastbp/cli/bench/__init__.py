"""`fastbp bench`: time per training step, beside other libraries."""
