"""The contract between the compressor, the control plane and the agent.

Everything here is pure: frozen models, tables and judgements. Nothing opens a file or a socket,
reads a clock or draws a random number. `docs/protocol.md` states the contract in numbered
requirements; the modules cite the numbers.
"""

PROTOCOL_MAJOR = 1
PROTOCOL_VERSION = "1.0"

__all__ = ["PROTOCOL_MAJOR", "PROTOCOL_VERSION"]
