"""Runtimes, one per file. Only child processes import these modules' libraries."""
