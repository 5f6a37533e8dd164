"""The model card: what `run` made, as one page that needs no network."""
