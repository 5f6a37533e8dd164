"""Measuring: a worker per process, a protocol that runs several, statistics that judge them."""
