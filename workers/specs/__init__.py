"""What people write about pools and workspaces, checked when it is saved. Pure."""
