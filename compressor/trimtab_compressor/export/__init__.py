"""Exporters: from a network to a float model file. One file per format."""
