"""The Celery application, for its worker and its client.

Results are stored, since they are read back. `acks_late` with `reject_on_worker_lost`: a task goes back when its worker dies,
instead of being lost with it. The visibility timeout is half a minute instead of an hour, for tasks of milliseconds. Tasks that
run when the broker is lost run on. Events, rate limits and the results' metadata are off, and many tasks are fetched ahead.
"""

import os

from celery import Celery
from function import echo as run

URL = os.environ["PEERS_REDIS"]

app = Celery("celery_app", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=False,
    task_send_sent_event=False,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    worker_prefetch_multiplier=64,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"visibility_timeout": 30},
    result_extended=False,
    result_expires=3600,
    task_compression=None,
    task_serializer="json",
    result_serializer="json",
)


@app.task(name="echo")
def echo(payload: str) -> str:
    return run(payload)
