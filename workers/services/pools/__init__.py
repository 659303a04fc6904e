"""What people do with pools: manage, drain, delete, adopt a Deployment, look."""
