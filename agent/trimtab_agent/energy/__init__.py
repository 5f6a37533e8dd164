"""Energy sensors, one per file, and the windows in which they are read."""
