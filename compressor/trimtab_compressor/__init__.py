"""Trimtab compressor."""
