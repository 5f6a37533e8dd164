"""Trimtab deploy."""
