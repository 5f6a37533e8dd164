"""The HTTP API: what `trimtab_protocol.api` says, over FastAPI."""
