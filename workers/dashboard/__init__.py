"""The dashboard: Flower, with a page of the slots and the pools' metrics beside what Flower shows of Celery."""
