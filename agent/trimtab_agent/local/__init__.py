"""The API for applications on this device: HTTP over a Unix socket. Off unless it is configured.

Read in this order: `histogram` (latencies), `holds`, `board` (what is known, safe for threads),
`routes` (what may be asked), `server` (the socket). The resident process imports `server` only if the
settings name a socket.
"""
