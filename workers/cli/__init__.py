"""``terraslot``, the command line: one module a noun, each a few lines over the services."""
