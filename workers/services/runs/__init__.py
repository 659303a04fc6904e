"""The way of a run: submit, dispatch, orders, report, decide, finish, deliver; and views of it."""
