"""The worker that takes reports of agents: ``celery -A workers.reports worker``.

Agents may write to the reports queue. The app that reads it knows one task, so that a forged message can name no
other; and a report counts only with the token of its lease.
"""

from workers.app import build_app
from workers.protocol import names
from workers.services.runs import undeliverable
from workers.services.system import system

app = build_app("terraslot-reports", [names.REPORTS_QUEUE], [])
# Reports need no acknowledgement: an agent repeats what counts until the slot map shows that it was taken.
app.conf.broker_transport_options = {**app.conf.broker_transport_options, "ack_emulation": False}


@app.task(name=names.REPORT, ignore_result=True, send_events=False)
def report(payload: object) -> None:
    """Take one report of an agent."""
    undeliverable.receive(system(), payload)
