"""What Celery beat fires, and how often. Data only.

Every job is safe twice, and what works on a pool is locked, so that two beats do no harm; a message that nobody took
before the next one is due expires, so that they don't pile up while no worker runs.
"""

from workers.protocol import names
from workers.settings import settings

BEAT_SCHEDULE = {
    "reconcile-and-autoscale-every-pool": {
        "task": names.CYCLES,
        "schedule": settings().cycle_seconds,
        "options": {"expires": settings().cycle_seconds},
    },
    "dispatch-every-pool": {
        "task": names.DISPATCHES,
        "schedule": settings().dispatch_seconds,
        "options": {"expires": settings().dispatch_seconds},
    },
    "deliver-outcomes": {
        "task": names.DELIVERIES,
        "schedule": settings().cycle_seconds,
        "options": {"expires": settings().cycle_seconds},
    },
    "forget-old-history": {
        "task": names.FORGET,
        "schedule": 300.0,
        "options": {"expires": 300.0},
    },
}
