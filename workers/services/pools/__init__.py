"""Pools as people use them: create and update, drain, delete, adopt a Deployment, show."""
