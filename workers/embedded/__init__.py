"""The embedded system: everything that Terraslot needs, under one directory of one machine.

:func:`workers.embedded.supervisor.up` runs it in the foreground, :func:`workers.embedded.background.detach` and
:func:`~workers.embedded.background.down` in the background; :mod:`workers.embedded.demo` shows it at work.
"""
