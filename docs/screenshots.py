"""Takes the pictures of the pages: ``make screenshots``, from an embedded system of its own with real runs.

One run of each kind is there: one applies, one plans, one waits for a person with a plan that destroys, one waits for
a slot, one has failed. Ids and names are the same each time; a picture that shows the same as the one that is there,
but for the ages and times on it, stays as it is.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
PROGRAM = Path(sys.executable).with_name("terraslot")
CHROMIUM = "/usr/bin/chromium"
_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_WIDTH, _HEIGHT = 1280, 800
_HEIGHTS = {"run": 1200, "pool": 1200}  # what matters is further down
_COMES_LATER = {"run": "$ terraform plan"}
_AT_MOST = 200 * 1024  # bytes of a picture
_SAME = 0.02  # the part of a picture's dots that ages and times may change
_PATIENCE = 120.0
_RUN = "{:08x}-7e57-4000-8000-000000000000"
NETWORK, CDN, SEARCH, DNS, BILLING = (_RUN.format(0x5C0FFEE0 + number) for number in range(5))

PAGES = {
    "slots": "/slots",
    "runs": "/runs",
    "run": f"/runs/{NETWORK}",
    "pool": "/pools/default",
    "workspace": "/workspaces/network",
}

_NETWORK = """
variable "size" { default = "small" }
resource "terraform_data" "subnet" {
  for_each = toset(["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"])
  input    = each.key
}
resource "terraform_data" "gateway" { triggers_replace = [var.size] }
resource "terraform_data" "firewall" { input = "allow from ${var.size}" }
output "subnets" { value = keys(terraform_data.subnet) }
"""
_APPLIES = 'resource "terraform_data" "zone" {\n  provisioner "local-exec" { command = "exec sleep 600" }\n}\n'
_PLANS = """
data "terraform_remote_state" "network" {
  backend = "http"
  config  = { address = "http://127.0.0.1:%d/" }
}
"""
_FAILS = 'resource "terraform_data" "invoice" {\n  count = "many"\n}\n'
# The part of the dots of two pictures that differ; 1 where their sizes do.
_DIFFERENCE = """async ([one, other]) => {
  const dots = async (data) => {
    const image = new Image(); image.src = data; await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const [a, b] = [await dots(one), await dots(other)];
  if (a.width !== b.width || a.height !== b.height) return 1;
  const [p, q] = [new Uint32Array(a.data.buffer), new Uint32Array(b.data.buffer)];
  return p.filter((dot, at) => dot !== q[at]).length / p.length;
}"""


class System:
    """An embedded system under a directory of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        foreign = ("TERRASLOT_", "TF_CLI_CONFIG_FILE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.environment = kept | {"TERRASLOT_HOME": str(directory / "home"), "TERRASLOT_ACTOR": "ada"}

    def __call__(self, *words: str, check: bool = True) -> None:
        """Run a command."""
        subprocess.run([PROGRAM, *words], env=self.environment, check=check, stdout=subprocess.DEVNULL)  # noqa: S603

    def workspace(self, name: str, code: str) -> None:
        """Create a workspace from Terraform code."""
        place = self.directory / name
        place.mkdir()
        (place / "main.tf").write_text(code, encoding="utf-8")
        self("workspace", "create", name, "--path", str(place))

    def run(self, run_id: str, workspace: str, kind: str = "plan_and_apply", **more: Any) -> None:
        """Enqueue a run under an id that is the same each time."""
        asked = {"workspace": workspace, "kind": kind, **more}
        self._api("/runs", asked, {"Idempotency-Key": run_id})

    def reaches(self, run_id: str, *statuses: str) -> None:
        """Wait until a run has one of these statuses."""
        until = time.monotonic() + _PATIENCE
        while (status := self._api(f"/runs/{run_id}")["run"]["status"]) not in statuses:
            if time.monotonic() > until:
                raise SystemExit(f"The run {run_id} is {status}, not {' or '.join(statuses)}.")
            time.sleep(0.2)

    def _api(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1{path}", data, {"Content-Type": "application/json", **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)


@contextmanager
def system() -> Iterator[System]:
    """Start an embedded system, and stop it in the end."""
    with tempfile.TemporaryDirectory() as directory:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            made = System(Path(directory), free.getsockname()[1])
        made("up", "--detach", "--flower-port", str(made.port))
        try:
            yield made
        finally:
            for run in (DNS, SEARCH):  # which would go on for minutes
                made("cancel", run, "--force", "--no-wait", check=False)
            made("down", "--yes")


@contextmanager
def slow_server() -> Iterator[int]:
    """Answer nobody until the end; yield the port."""
    over = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        over.set()
        server.shutdown()


def set_the_scene(system: System, slow: int) -> None:
    """Let one run of each kind be there."""
    system("pool", "update", "default", "--min", "2", "--max", "2")
    for name, code in (
        ("network", _NETWORK), ("dns", _APPLIES), ("search", _PLANS % slow), ("cdn", _APPLIES), ("billing", _FAILS),
    ):  # fmt: skip
        system.workspace(name, code)
    system("apply", "network", "--yes", "--message", "the first apply")
    system.run(NETWORK, "network", variables={"size": "large"}, message="a larger gateway")
    system.reaches(NETWORK, "apply_pending")
    system.run(DNS, "dns", auto_apply=True, message="a new zone")
    system.reaches(DNS, "applying")
    system.run(BILLING, "billing", "plan")
    system.reaches(BILLING, "failed")
    system.run(SEARCH, "search", "plan")
    system.reaches(SEARCH, "planning")
    system.run(CDN, "cdn", message="the spring campaign")


def take(browser: Browser, port: int) -> list[str]:
    """Take all pictures, say which of them are new, and return what kept any from being taken."""
    IMAGES.mkdir(exist_ok=True)
    problems = []
    for name, path in PAGES.items():
        size: Any = {"width": _WIDTH, "height": _HEIGHTS.get(name, _HEIGHT)}
        page = browser.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")
        answer = page.goto(f"http://127.0.0.1:{port}{path}")
        if answer is None or not answer.ok:
            problems.append(f"{path}: the dashboard answers {answer and answer.status}.")
            continue
        page.wait_for_selector('#content:not([aria-busy="true"])')
        page.wait_for_load_state("load")
        if name in _COMES_LATER:
            page.get_by_text(_COMES_LATER[name]).first.wait_for(state="attached")
        picture = page.screenshot(animations="disabled", caret="hide")
        if len(picture) > _AT_MOST:
            problems.append(f"{path}: its picture has {len(picture):,} bytes, more than {_AT_MOST:,}.")
        elif _is_new(page, IMAGES / f"{name}.png", picture):
            (IMAGES / f"{name}.png").write_bytes(picture)
            print(f"{name}.png is new: {len(picture):,} bytes.")  # noqa: T201 - a program
        page.close()
    return problems


def _is_new(page: Page, file: Path, picture: bytes) -> bool:
    if not file.exists():
        return True
    pictures = (base64.b64encode(each).decode() for each in (file.read_bytes(), picture))
    page.goto("about:blank")
    return bool(page.evaluate(_DIFFERENCE, [f"data:image/png;base64,{each}" for each in pictures]) > _SAME)


def main() -> int:
    """Take the pictures."""
    with slow_server() as slow, system() as made, sync_playwright() as playwright:
        set_the_scene(made, slow)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        try:
            problems = take(browser, made.port)
        finally:
            browser.close()
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
