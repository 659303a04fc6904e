"""The slot map, the jobs' locks and the runs' log streams: all that speaks to Redis or Valkey besides Celery."""
