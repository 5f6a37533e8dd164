"""A model file seen as its weighted layers, whatever the format; techniques stand above it."""
