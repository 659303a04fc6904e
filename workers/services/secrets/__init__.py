"""Credentials of pools, and sensitive variables of pools and workspaces."""
