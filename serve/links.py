"""Links to a video for whoever holds them, for an hour: for players and callbacks, which cannot send a key."""

import hashlib
import hmac
import time

from kling.schema import API_PREFIX

_LINK_S = 3600


def signed_link(secret: bytes, task_id: str) -> str:
    """Path of a video, with its signature."""
    expires = int(time.time()) + _LINK_S
    return f"{API_PREFIX}/content/{task_id}?expires={expires}&signature={_signature(secret, task_id, expires)}"


def is_opened_by(secret: bytes, task_id: str, expires: int, signature: str) -> bool:
    """Whether that signature was made for that video, and still holds."""
    wanted = _signature(secret, task_id, expires)
    return expires > time.time() and hmac.compare_digest(wanted.encode(), signature.encode())


def _signature(secret: bytes, task_id: str, expires: int) -> str:
    return hmac.new(secret, f"link {task_id} {expires}".encode(), hashlib.sha256).hexdigest()
