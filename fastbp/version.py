"""The version, where packaging, the package and its parts can read it."""

__version__ = "0.1.0"
