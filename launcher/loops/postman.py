"""The postman: delivers webhooks, again and again until they are taken or given up."""

import logging
from concurrent.futures import ThreadPoolExecutor

from launcher.errors import LauncherError, WebhookFailed
from launcher.reach.egress import Egress
from launcher.state.deliveries import Deliveries, Delivery
from launcher.webhooks import cloud_event, next_try, send

# Receivers that are slow hold up so many others at the most.
_AT_ONCE = 8
_TIMEOUT_S = 10.0
# Longer than a try may take, so that nobody sends the same at the same time.
_LEASE_S = 30.0

_log = logging.getLogger("launcher.loops.postman")


class Postman:
    """Delivers what is due.

    Args:
        source: who the events are from, a URI reference.
    """

    def __init__(self, deliveries: Deliveries, egress: Egress, source: str) -> None:
        self._deliveries = deliveries
        self._egress = egress
        self._source = source
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="postman")

    def tick(self) -> int:
        """Deliver some, side by side. Returns how many were tried."""
        claimed = self._deliveries.claim(_AT_ONCE, _LEASE_S)
        list(self._threads.map(lambda each: self._deliver(*each), claimed))
        return len(claimed)

    def close(self) -> None:
        """Deliver nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, delivery: Delivery, secret: str | None) -> None:
        event = cloud_event(
            event_id=delivery.id,
            source=self._source,
            status=delivery.event["status"],
            job_id=delivery.job_id,
            at=delivery.created_at,
            data=delivery.event,
        )
        try:
            send(delivery.url, event, secret, self._egress, _TIMEOUT_S, whose=delivery.tenant)
        except LauncherError as error:
            # What a secret cannot sign today it cannot sign tomorrow.
            passing = isinstance(error, WebhookFailed) and error.retry
            wait_s = next_try(delivery.tries) if passing else None
            self._deliveries.failed(delivery.id, str(error), wait_s)
            level = logging.INFO if wait_s is not None else logging.WARNING
            what = f"again in {wait_s:.0f} s" if wait_s is not None else "given up"
            fields = {"job_id": delivery.job_id, "tenant": delivery.tenant}
            _log.log(level, "webhook of %s: %s; %s", delivery.job_id, error, what, extra=fields)
        else:
            self._deliveries.delivered(delivery.id)
