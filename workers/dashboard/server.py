"""Flower as one Tornado application, with the pages of this package added.

Flower's own options, ``FLOWER_*`` variables and configuration file hold, its authentication too. Unless told
otherwise it listens on the loopback interface only, since it shows names, errors and outputs of runs.
"""

import signal
from collections.abc import Sequence
from typing import Any

from celery import Celery
from flower.api import tasks as flower_tasks
from flower.app import Flower
from flower.command import apply_env_options, apply_options, extract_settings, is_flower_option, setup_logging
from flower.options import options
from flower.urls import settings as application_settings
from prometheus_client import REGISTRY
from tornado.options import Error as OptionError

from workers.app import app
from workers.dashboard.api.handler import rules
from workers.dashboard.changes import Changes, Reader, stream
from workers.dashboard.flower_pages import flower_pages
from workers.dashboard.memory import Memory
from workers.dashboard.metrics import SystemMetrics
from workers.dashboard.pages import Navigation, pages
from workers.dashboard.shared_pools import SharedPools
from workers.logs import configure
from workers.protocol.errors import InvalidRequest, Unavailable
from workers.services.system import System, system
from workers.settings import settings

LOOPBACK = "127.0.0.1"
# Seconds for which an agent that is gone is shown as offline: pools make new ones all the time.
FORGET_AGENTS_AFTER = 900
# Flower asks again by itself, and soon; a thread that insisted would keep the process from ending.
_ASK_ONCE = {"max_retries": 1, "interval_start": 0}


def serve(arguments: Sequence[str]) -> None:
    """Serve the dashboard until SIGTERM or SIGINT.

    Raises :class:`InvalidRequest` for invalid options, :class:`Unavailable` where the port is taken.
    """
    read_options(arguments)
    configure(settings().log_level, settings().log_format)
    flower = build(app, system())
    try:
        flower.start_http_server()
    except OSError as error:
        where = f"{options.address}:{options.port}"
        raise Unavailable(f"Flower can't listen on {where} ({error.strerror}): choose another --port.") from error
    Memory(flower, system()).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: flower.io_loop.add_callback_from_signal(flower.stop))
    flower.start()


def read_options(arguments: Sequence[str]) -> None:
    """Read Flower's options from the environment, its configuration file and ``arguments``."""
    unknown = [argument for argument in arguments if not is_flower_option(argument)]
    if unknown:
        raise InvalidRequest(f"Flower has no option {unknown[0]}: see python -m workers.dashboard --help.")
    options.address = LOOPBACK
    options.purge_offline_workers = FORGET_AGENTS_AFTER
    try:
        apply_env_options()
        apply_options("workers.dashboard", arguments)
    except (OptionError, ValueError) as error:
        raise InvalidRequest(f"Flower's options are invalid: {error}.") from error
    extract_settings()
    setup_logging()


def build(celery: Celery, of: System) -> Any:
    """Return Flower with the pages and metrics of the pools of a system; to be built once a process."""
    celery.conf.broker_transport_options = celery.conf.broker_transport_options | _ASK_ONCE
    # Flower looks results up in Celery's current app, which no app of this project is: it would answer 503.
    flower_tasks.AsyncResult = celery.AsyncResult
    more = application_settings | {"ui_modules": {"Template": Navigation}, "compress_response": True}
    flower = Flower(capp=celery, options=options, **more)
    # Nothing is prefetched here: a run is received by a control worker, and started by an agent.
    for measured in ("prefetch_time", "number_of_prefetched_tasks"):
        REGISTRY.unregister(getattr(flower.events.state.metrics, measured))
    # Rules of a host come before Flower's own, whose last one answers everything with 404.
    pools = SharedPools(of)
    prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    changes = stream(of, Changes(Reader(of, pools).look), prefix)
    flower.add_handlers(r".*", [*flower_pages(of, prefix), *pages(pools, prefix), changes, *rules(of, pools, prefix)])
    REGISTRY.register(SystemMetrics(of, pools))
    return flower
