"""The agent: one small resident process that decides, and short-lived children that do the rest.

Read in this order: `reconcile` and `admission` (what is decided), `store` (what is on disk),
`fetch` (delivery), `deployments` and `trials` (what is done), `daemon` (the loop).
"""

__version__ = "0.1.0"
