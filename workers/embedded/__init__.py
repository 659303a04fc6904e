"""The embedded system: everything that Terraslot needs, under one directory of one machine.

:func:`workers.embedded.supervisor.up` runs it in the foreground, :func:`workers.embedded.background.detach` in a
session of its own, and :func:`~workers.embedded.background.down` ends it from another process.
"""
