"""``/api/v1``: runs, decisions, workspaces, pools and slots for programs and for the pages of the dashboard.

:mod:`operations` has a function for each request, :mod:`handler` answers requests with them, :mod:`openapi` describes
them. What changes something goes through the Celery tasks that every caller uses.
"""
