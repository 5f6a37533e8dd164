"""One file per command: its arguments, and what it does. Heavy imports stay inside `run`."""
