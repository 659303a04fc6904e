"""What beat has done for each pool: one cycle of reconcile and scale; and what agents' pods need for it."""
