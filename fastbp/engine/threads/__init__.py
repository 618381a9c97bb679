"""Threads: starting them, how many, and whether at all."""
