"""Tables in files, read by pandas."""
