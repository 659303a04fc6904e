"""What runs inside a pod: a Celery worker that takes orders, runs Terraform in three slots and reports.

``celery -A agent`` finds the application here. It is made on first use: importing a module of the agent reads no
environment.
"""


def __getattr__(name: str) -> object:
    if name != "celery":
        raise AttributeError(f"module 'agent' has no attribute {name!r}")
    from agent.app import load  # noqa: PLC0415 - see above

    return load()
