"""One worker's way through forward, backward and update."""
