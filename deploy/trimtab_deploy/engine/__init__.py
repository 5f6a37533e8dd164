"""What decides: facts and a time in, decisions out. No I/O, no clock, no random numbers."""
