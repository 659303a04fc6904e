"""The queues of orders on the broker: Celery's, one for each agent.

An order holds the variables of its workspace, the sensitive ones encrypted. A living agent takes it at once; what a
dead one has not taken goes with it, or by itself.
"""

import redis

from workers.protocol.names import orders_queue

# Seconds. Longer than an order waits for an agent before it is sent again.
_KEPT_SECONDS = 600


def expire(client: redis.Redis, pool: str, agent: str) -> None:
    """Let what was sent to an agent be dropped, unless it is taken within ten minutes or something follows."""
    client.expire(orders_queue(pool, agent), _KEPT_SECONDS)


def remove(client: redis.Redis, pool: str, agent: str) -> None:
    """Drop what an agent that is gone has not taken."""
    client.delete(orders_queue(pool, agent))
