"""Use cases: read facts, let the core decide, perform. One use case a function; effects come after the commit.

Order of writes: take the slot, commit the database, then send; on the way back commit, then release. A crash
between two steps leaves something that :mod:`workers.services.scaling.reconcile` sees and finishes.
"""
