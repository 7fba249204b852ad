"""When to try again, after how long, and with how much patience: one policy for the sync and the async client.

    429            exponential with full jitter, and never earlier than Retry-After says; when that is too far
                   away (a quota that ends with the day), the refusal is final
    500-599        linear (a service that restarts comes back at its own pace), honouring Retry-After too
    time-out       at once, with a longer time-out
    no connection  linear
    else           never

A retried POST carries the same idempotency key, so that trying again never makes a second video.
"""

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from kling.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How patient a client is."""

    max_tries: int = 8
    base_s: float = 0.5  # first pause of both series
    max_pause_s: float = 60.0
    timeout_s: float = 30.0  # of the first try
    timeout_growth: float = 2.0  # a try that timed out is repeated with so much more
    max_timeout_s: float = 300.0
    max_retry_after_s: float = 600.0  # told to come back later than that, the caller decides, not this

    def __post_init__(self):
        if self.max_tries < 1 or self.timeout_growth < 1:
            raise ConfigError("at least one try, and time-outs that do not shrink", where=repr(self))
        if min(self.base_s, self.max_pause_s, self.timeout_s, self.max_timeout_s, self.max_retry_after_s) <= 0:
            raise ConfigError("pauses and time-outs are positive", where=repr(self))


@dataclass(kw_only=True)
class Tries:
    """The tries of one request: what to wait before the next, or that there is no next."""

    policy: RetryPolicy
    rng: random.Random = field(default_factory=random.Random)
    count: int = 0
    timeout_s: float = 0.0

    def __post_init__(self):
        self.timeout_s = self.timeout_s or self.policy.timeout_s

    def after_answer(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait before the next try; None: this answer is final."""
        self.count += 1
        if headers.get("x-should-retry") == "false" or (status != 429 and status < 500):
            return None
        if self.count >= self.policy.max_tries:
            return None
        if status == 429:
            ceiling = min(self.policy.max_pause_s, self.policy.base_s * 2**self.count)
            pause = self.rng.uniform(0.0, ceiling)
        else:
            pause = self._linear()
        told = retry_after_s(headers)
        return None if told > self.policy.max_retry_after_s else max(pause, told)

    def after_failure(self, error: httpx.TransportError) -> float | None:
        """The same for a request that got no answer."""
        self.count += 1
        if self.count >= self.policy.max_tries:
            return None
        if isinstance(error, httpx.TimeoutException):
            self.timeout_s = min(self.policy.max_timeout_s, self.timeout_s * self.policy.timeout_growth)
            return 0.0
        return self._linear()

    def _linear(self) -> float:
        return min(self.policy.max_pause_s, self.policy.base_s * self.count)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds from now, of either form that HTTP knows (a number, a date); 0 where there is none that can be read."""
    text = headers.get("retry-after", "0")
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        if moment.tzinfo is None:  # "-0000": UTC, by RFC 5322
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
