"""Searches: which candidate to measure next. One strategy per file, behind one port."""
