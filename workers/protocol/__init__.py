"""What agent and control plane say to one another: messages, names, values that cross the wire, their encryption.

Two programs that are upgraded at different times import this package: it states the contract between them. It imports
nothing else of the project. Pure: no clock, no connection, no process.
"""
