"""What kept an API server from answering, in words. A library's own text names its objects, and not the cause."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from workers.protocol.errors import Unavailable

# As OpenSSL's errors are shown: "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: … (_ssl.c:1006)".
_TLS = re.compile(r"\[SSL: \w+\]([^(]+)")
_REACH = "Check that it runs, and that this process can reach it."


def explain_outage(error: Exception, what: str, server: str, seconds: float) -> Unavailable:
    """Return the error for a call, ``what`` in words, that ``server`` did not answer; it had ``seconds`` to do so."""
    cause, advice = _cause(error, seconds)
    return Unavailable(f"The API server {_public(server)} did not answer when asked to {what}: {cause}. {advice}")


def _cause(error: Exception, seconds: float) -> tuple[str, str]:  # noqa: PLR0911 - one a cause
    from urllib3 import exceptions  # noqa: PLC0415 - a control plane without Kubernetes pools does without

    if isinstance(error, exceptions.NameResolutionError):
        return "its name can't be resolved", "Check the server's address in the kubeconfig, and DNS."
    if isinstance(error, exceptions.NewConnectionError):
        refused = "refused" in str(error)
        return "it refused the connection" if refused else "no connection could be made", _REACH
    if isinstance(error, exceptions.ConnectTimeoutError):
        return "no connection could be made in time", _REACH
    if isinstance(error, exceptions.TimeoutError):
        return f"no answer came within {seconds:g} s", _REACH
    if tls := _TLS.search(f"{error} {getattr(error, 'reason', '')}"):
        return (
            f"TLS failed ({tls[1].strip()})",
            "Check its address and certificate in the kubeconfig.",
        )
    if isinstance(error, ValueError):
        return "what came is no JSON, as from a proxy or a login page", "Check the server's address in the kubeconfig."
    return "the connection was cut", _REACH


def _public(server: str) -> str:
    """Return an address without a password that stands in it."""
    parts = urlsplit(server)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
