"""The lab's machine `world`: plays what in production belongs to somebody else, one module for each."""
