"""The host-side tool: makes candidates from a base model, judges them, and fits them to devices.

Heavy libraries (torch, ONNX, LiteRT) are imported where they are used, never at start, so that
`trimtab-compressor --help` answers at once.
"""
