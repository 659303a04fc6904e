"""Who holds a lock in Terraform's ``http`` backend. A program: ``python -I http_lock.py RECORD``.

Terraform tells the id alone, and names its own request where it tells of other backends who holds the lock. The server
tells it to whoever asks for the lock. So this asks, prints the server's answer, and gives a lock that it gets back.
``RECORD`` is what ``terraform init`` has entered of the backend; as for Terraform, the environment has the rest.

Imports nothing of the project, so that the program starts in an isolated Python.
"""

import base64
import json
import os
import signal
import ssl
import sys
import tempfile
import time
import uuid
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

_SECONDS = 10
_TRIES, _PAUSE = 3, 1.0  # to give a lock back; seconds between them
_LONGEST = 100_000  # bytes
_HELD = (409, 423)


class Backend:
    """The backend of a record."""

    def __init__(self, config: dict[str, object]) -> None:
        self._config = config

    def get(self, name: str, default: str = "") -> str:
        """Return a setting."""
        value = self._config.get(name)
        return str(value) if value not in (None, "") else os.environ.get(f"TF_HTTP_{name.upper()}") or default

    def ask(self, verb: str, lock: bytes) -> tuple[int, bytes]:
        """Ask for the lock, or give it back; return the status and the beginning of the answer."""
        address = urlsplit(self.get(f"{verb}_address"))
        if address.scheme not in ("http", "https") or address.hostname is None:
            sys.exit("it has no lock")
        connection = self._connection(address.scheme, address.hostname, address.port)
        headers = {"Content-Type": "application/json"}
        if name := self.get("username"):
            login = base64.b64encode(f"{name}:{self.get('password')}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        path = f"{address.path or '/'}{f'?{address.query}' if address.query else ''}"
        connection.request(self.get(f"{verb}_method", verb.upper()), path, lock, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_LONGEST)

    def _connection(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        if scheme == "http":
            return HTTPConnection(host, port, timeout=_SECONDS)
        context = ssl.create_default_context(cadata=self.get("client_ca_certificate_pem") or None)
        if self.get("skip_cert_verification").lower() in ("true", "1"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate := self.get("client_certificate_pem"):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(f"{certificate}\n{self.get('client_private_key_pem')}\n")
                file.flush()
                context.load_cert_chain(file.name)
        return HTTPSConnection(host, port, timeout=_SECONDS, context=context)


def main(record: str) -> None:
    """Print the holder of the lock as the server tells it; nothing where there is none."""
    backend = Backend(json.loads(Path(record).read_bytes())["backend"]["config"])
    if not backend.get("unlock_address"):
        sys.exit("a lock could not be given back")
    request = {"ID": str(uuid.uuid4()), "Operation": "look who holds the lock", "Who": "", "Created": None}
    lock = json.dumps(request).encode()
    status, answer = backend.ask("lock", lock)
    if status in _HELD:
        print(answer.decode(errors="replace"))  # noqa: T201 - the agent reads it
    elif status < 300:  # noqa: PLR2004 - success, as Terraform takes it
        _give_back(backend, lock)


def _give_back(backend: Backend, lock: bytes) -> None:
    for attempt in range(_TRIES):
        time.sleep(_PAUSE if attempt else 0)
        try:
            status, answer = backend.ask("unlock", lock)
        except (OSError, HTTPException) as error:
            why = str(error)
            continue
        if status < 300:  # noqa: PLR2004
            return
        why = f"{status} {answer.decode(errors='replace')}"
    sys.exit(f"The lock {json.loads(lock)['ID']}, by which this agent has asked who holds it, may still be held: {why}")


if __name__ == "__main__":
    # A run that is stopped meanwhile would else end this between a lock and its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(sys.argv[1])
