"""The fleet fixture for every end-to-end test."""

from support.fleet import fleet

__all__ = ["fleet"]
