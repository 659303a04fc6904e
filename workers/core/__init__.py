"""What is true of runs, slots and pools: values, transition tables and decisions.

Pure: nothing here reads a clock, opens a connection or starts a process. Time is always an argument, in seconds
since the epoch where it is a float and timezone-aware where it is a ``datetime``.
"""
