"""Public data sets, fetched when they are first needed and never shipped."""
