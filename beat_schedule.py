"""What Celery beat fires, and how often. Data only.

Every job is safe twice, and jobs of a pool take its lock, so that two beats do no harm. A message that no worker took
before the next one is due expires, so that messages don't pile up while no worker runs.
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
    "move-logs-of-phases-that-ended": {
        "task": names.LOGS,
        "schedule": 10.0,  # seconds; until then an ended phase's log takes up memory
        "options": {"expires": 10.0},
    },
    "encrypt-rescued-states": {
        "task": names.STATES,
        "schedule": 60.0,  # seconds; its pool's key lasts for some minutes after a rotation
        "options": {"expires": 60.0},
    },
    "purge-old-history": {
        "task": names.FORGET,
        "schedule": 300.0,  # seconds; up to 10,000 rows of each kind at a time
        "options": {"expires": 300.0},
    },
}
