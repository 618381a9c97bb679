"""From what a caller gives to rows of numbers."""
