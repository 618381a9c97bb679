"""Short ways into compiled code: the functions on the caller's arrays, predictions for a few rows."""
