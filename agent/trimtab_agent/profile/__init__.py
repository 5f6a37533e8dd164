"""Which operators take the time: a run of its own, in a process that may crash."""
