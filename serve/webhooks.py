"""Callbacks: tell a URL, signed, that a task has ended. Standard Webhooks (HMAC-SHA256 over id.timestamp.body).

A task asked for in the Kling official form is told in that form, with the same signature, when it starts and when it
has ended.

Every ingress replica looks for what is due; a conditional write decides who sends it. A receiver that does not answer
2xx is told again, with growing pauses, for about a day. The address is resolved and checked before every delivery, and
the connection is made to the address that was checked.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa

from kling.schema import FINAL_STATES

from .addresses import public_addresses
from .tasks import TASKS, TaskStore
from .views import official_view, task_view

log = logging.getLogger("ray.serve")  # JSON lines with what `extra` holds, beside Ray Serve's own

_PAUSES_S = (5, 30, 120, 600, 1800, 7200, 21_600, 43_200)
_TIMEOUT_S = 15.0  # of a whole delivery: a receiver that answers byte by byte holds nothing up
_POLL_S = 0.5
_AT_ONCE = 16  # deliveries of one ingress replica


def webhook_secret(service_secret: bytes, key_id: str) -> str:
    """What the owner of a key checks signatures with; shown by `python -m serve keys create --webhooks`."""
    raw = hmac.new(service_secret, b"webhook " + key_id.encode(), hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(raw).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header ``webhook-signature``."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Courier:
    """Delivers what is due.

    Args:
        public_only: False lets a test's receiver on this machine be told.
    """

    def __init__(self, store: TaskStore, service_secret: bytes, *, public_only: bool = True):
        self._store, self._secret, self._public_only = store, service_secret, public_only

    async def run(self) -> None:
        """Until cancelled. Several are on their way at once: a slow receiver is nobody else's delay."""
        free = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as deliveries:
            while True:
                await free.acquire()
                try:
                    row = await asyncio.to_thread(self._take)
                except sa.exc.SQLAlchemyError as error:
                    log.error("webhooks wait for the database", extra={"error": str(error.__class__.__name__)})
                    row = None
                if row is None:
                    free.release()
                    await asyncio.sleep(_POLL_S)
                    continue
                delivery = deliveries.create_task(self._deliver(row))
                delivery.add_done_callback(lambda _: free.release())

    async def deliver_one(self) -> bool:
        """Deliver the next due callback; False when none is due."""
        row = await asyncio.to_thread(self._take)
        if row is not None:
            await self._deliver(row)
        return row is not None

    async def _deliver(self, row: sa.RowMapping) -> None:
        try:
            problem = await self._send(row)
        except Exception as error:  # noqa: BLE001 - one callback that cannot be sent must not end the sending of all others
            problem = type(error).__name__
        tries = row["callback_tries"] + 1
        if problem is None and row["state"] in FINAL_STATES:
            noted: dict = {"callback_state": "done"}
        elif problem is None:
            noted = {"callback_told": row["state"], "callback_tries": 0, "callback_at": time.time()}
        else:
            state = "due" if tries <= len(_PAUSES_S) else "given up"
            noted = {"callback_state": state, "callback_at": time.time() + _pause_s(row)}
            log.warning("webhook not delivered", extra={"task": row["id"], "tries": tries, "reason": problem})
        try:
            await asyncio.to_thread(self._note, row["id"], noted)
        except sa.exc.SQLAlchemyError as error:  # it is told once more, under the same id
            log.error("webhook not noted", extra={"task": row["id"], "error": str(error.__class__.__name__)})

    def _take(self) -> sa.RowMapping | None:
        """The next due callback, put off past this try at once: a courier that dies leaves it due then."""
        now = time.time()
        begun = TASKS.c.callback_base.is_not(None) & (TASKS.c.state == "running") & (TASKS.c.callback_told == "")
        tellable = TASKS.c.state.in_(FINAL_STATES) | begun
        due = (TASKS.c.callback_state == "due") & tellable & (TASKS.c.callback_at <= now)
        with self._store.engine.begin() as connection:
            row = (
                connection.execute(sa.select(TASKS).where(due).order_by(TASKS.c.callback_at).limit(1))
                .mappings()
                .first()
            )
            if row is None:
                return None
            same = (TASKS.c.id == row["id"]) & (TASKS.c.callback_tries == row["callback_tries"])
            values = {"callback_tries": row["callback_tries"] + 1, "callback_at": now + _TIMEOUT_S + _pause_s(row)}
            return row if connection.execute(TASKS.update().where(same).values(**values)).rowcount else None

    def _note(self, task_id: str, values: dict) -> None:
        with self._store.engine.begin() as connection:
            connection.execute(TASKS.update().where(TASKS.c.id == task_id).values(**values))

    def _message(self, row: sa.RowMapping) -> tuple[str, bytes]:
        """Its id, the same at every try, so that a receiver can tell repeats; and its body."""
        if row["callback_base"] is not None:
            told = official_view(row, row["callback_base"], self._secret)
            return f"msg_{row['id']}_{told['task_status']}", json.dumps(told).encode()
        told = {"type": f"task.{row['state']}", "data": task_view(row).model_dump()}
        return f"msg_{row['id']}", json.dumps(told).encode()

    async def _send(self, row: sa.RowMapping) -> str | None:
        """None when the receiver answered 2xx, else why not."""
        message_id, body, now = *self._message(row), int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(webhook_secret(self._secret, row["owner"]), message_id, now, body),
        }
        parts = urlsplit(row["callback_url"])
        host, extensions, url = parts.hostname or "", {}, httpx.URL(row["callback_url"])
        if self._public_only:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            addresses = await asyncio.to_thread(public_addresses, host, port)
            if not addresses:
                return "not a public address"
            # Connect to what was checked: a name may lead elsewhere the next moment.
            headers["host"] = url.netloc.decode()
            extensions = {"sni_hostname": host}
            url = url.copy_with(host=addresses[0])
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", url, content=body, headers=headers, extensions=extensions) as answer,
            ):  # the status is the whole answer: what follows it is not read
                return None if answer.is_success else f"HTTP {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # TimeoutError is an OSError
            return type(error).__name__


def _pause_s(row: sa.RowMapping) -> float:
    """Until the next try, if this one is not heard."""
    return float(_PAUSES_S[min(row["callback_tries"], len(_PAUSES_S) - 1)])
