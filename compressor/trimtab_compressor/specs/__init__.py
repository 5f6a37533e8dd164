"""What each pass can be told: one file per technique. Pure: no torch, no runtime.

A spec, what it needs and its input decide the result completely, so specs are part of the cache key
and of the manifest's lineage.
"""
