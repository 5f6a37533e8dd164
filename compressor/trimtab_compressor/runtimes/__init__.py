"""Adapters that run a model file by the runtime that it is for."""
