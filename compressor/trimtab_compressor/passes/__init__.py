"""Passes: each changes a network or a model file in one way. One file per pass.

`specs.py` says what each can be told, `table.py` finds the function; import them from there, so
that naming a pass does not import torch.
"""
