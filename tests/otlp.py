"""A collector of traces on loopback: what OpenTelemetry's exporter sends, decoded."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span as the collector has it; ids are hexadecimal, times seconds. ``error``: what it says of its failure."""

    name: str
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    about: dict[str, Any]
    error: str | None


@dataclass
class Collector:
    """What has arrived. ``headers``: those of each request."""

    endpoint: str
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    def take(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            self.services.add(about["service.name"])
            for of_scope in of_resource.scope_spans:
                self.spans += map(_span, of_scope.spans)

    def of(self, run: str) -> dict[str, list[Span]]:
        """The spans of a run by their names, in the order in which they began."""
        found: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda span: span.began):
            if span.about.get("terraslot.run") == run:
                found.setdefault(span.name, []).append(span)
        return found


def _span(sent: Any) -> Span:
    about = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in sent.attributes}
    error = sent.status.message if sent.status.code == sent.status.STATUS_CODE_ERROR else None
    ids = (sent.trace_id.hex(), sent.span_id.hex(), sent.parent_span_id.hex())
    return Span(sent.name, *ids, sent.start_time_unix_nano / 1e9, sent.end_time_unix_nano / 1e9, about, error)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            found.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
