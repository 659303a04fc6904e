"""The queues of orders on the broker: Celery's, one for each agent.

An order holds the variables of its workspace, the sensitive ones encrypted. A living agent takes it at once; what a
dead one has not taken goes with it, or by itself.
"""

import redis

from workers.protocol.names import orders_queue
from workers.slots.connection import Script, Step

# Seconds. Longer than an order waits for an agent before it is sent again.
_KEPT_SECONDS = 600
_SEND = Script.load("send_order")


def send(pool: str, agent: str, message: str) -> Step:
    """Return the step that sends a message to an agent; it is dropped unless it is taken within ten minutes.

    Its reply is 1.
    """
    return _SEND.step([orders_queue(pool, agent).encode()], message, _KEPT_SECONDS)


def remove(client: redis.Redis, pool: str, agent: str) -> None:
    """Drop what an agent that is gone has not taken."""
    client.delete(orders_queue(pool, agent))
