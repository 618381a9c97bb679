"""`fastbp train` and `fastbp predict`: from a file to a network and back."""
