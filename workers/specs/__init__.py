"""The configuration of pools and workspaces, checked when it is saved. Pure."""
