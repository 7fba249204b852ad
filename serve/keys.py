"""Bearer keys: made once, shown once, kept as a hash; what each may do and how much.

A key is ``kling_ID_SECRET``; the row holds the id and SHA-256 of the secret (256 random bits: nothing to guess, so no
slow hash). For callers that sign JWTs with an access and a secret key, the secret key is derived from the service's own
secret file and the id, and is stored nowhere.
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kling import storage
from kling.errors import ConfigError
from kling.schema import UsageWindow

SCOPES = ("generate", "read")
WARN_SHARE = 0.80
REFUSE_SHARE = 0.95
_JWT_LEEWAY_S = 5.0
_JWT_MAX_AGE_S = 3600.0

_metadata = sa.MetaData()
KEYS = sa.Table(
    "keys",
    _metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("scopes", sa.String(80), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("hour_s", sa.Float),  # seconds of video; None: no limit
    sa.Column("day_s", sa.Float),
    sa.Column("month_s", sa.Float),
    sa.Column("requests_per_minute", sa.Integer, nullable=False),
)
USAGE = sa.Table(
    "usage",
    _metadata,
    sa.Column("key_id", sa.String(40), primary_key=True),
    sa.Column("window", sa.String(24), primary_key=True),  # "hour 2026-11-22T21", "minute ..." counts requests
    sa.Column("used", sa.Float, nullable=False),
    sa.Column("ends_at", sa.Float, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one key may use. Seconds of finished video (granted length) per window; None: no limit."""

    hour_s: float | None = None
    day_s: float | None = None
    month_s: float | None = None
    requests_per_minute: int = 600

    def __post_init__(self):
        for name in ("hour_s", "day_s", "month_s", "requests_per_minute"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError("a limit is positive, or left out for none", where=f"{name}={value}")


@dataclass(frozen=True, kw_only=True)
class Key:
    id: str
    name: str
    scopes: frozenset[str]
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """What `create` shows once."""

    id: str  # also the access key of JWT callers
    bearer: str
    jwt_secret: str


class RefusedError(Exception):
    """A limit is reached. ``retry_after_s``: when the window ends."""

    def __init__(self, code: str, message: str, retry_after_s: float):
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


class BadTokenError(Exception):
    """A JWT that says why it is not taken: ``code`` is bad_token, early_token or late_token."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


class KeyStore:
    """Keys and their usage, in the same database as the tasks.

    Args:
        engine: from `serve.tasks.connect`.
        pepper: the service's own secret (see `service_secret`).
    """

    def __init__(self, engine: sa.Engine, pepper: bytes):
        self.engine, self._pepper = engine, pepper
        _metadata.create_all(engine)

    def create(self, *, name: str, scopes: frozenset[str], limits: Limits) -> NewKey:
        unknown = scopes - set(SCOPES)
        if unknown or not scopes:
            raise ConfigError("unknown scope", where=", ".join(sorted(unknown)) or "none", fix=f"Use {SCOPES}")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self.engine.begin() as connection:
            connection.execute(
                KEYS.insert().values(
                    id=key_id,
                    name=name[:80],
                    hash=_hash(secret),
                    scopes=" ".join(sorted(scopes)),
                    created_at=time.time(),
                    hour_s=limits.hour_s,
                    day_s=limits.day_s,
                    month_s=limits.month_s,
                    requests_per_minute=limits.requests_per_minute,
                )
            )
        return NewKey(id=key_id, bearer=f"kling_{key_id}_{secret}", jwt_secret=self._jwt_secret(key_id))

    def list(self) -> list[sa.RowMapping]:
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(KEYS).order_by(KEYS.c.created_at)).mappings())

    def revoke(self, key_id: str) -> None:
        with self.engine.begin() as connection:
            done = connection.execute(KEYS.update().where(KEYS.c.id == key_id).values(revoked_at=time.time()))
        if done.rowcount == 0:
            raise ConfigError("no such key", where=key_id, fix="List them: python -m serve keys list --state DIR")

    def authenticate(self, bearer: str) -> Key | None:
        """The key a token stands for, or None: unknown, revoked, forged. Comparisons take equal time.

        Raises:
            BadTokenError: a JWT that is none, or whose time has not come or is over.
        """
        if bearer.count(".") == 2:
            return self._by_jwt(bearer)
        parts = bearer.split("_", 2)
        if len(parts) != 3 or parts[0] != "kling":
            return None
        row = self._row(parts[1])
        # An unknown id is compared too, so that timing does not tell ids apart.
        same = hmac.compare_digest(_hash(parts[2]), row["hash"] if row else "0" * 64)
        return _key(row) if row is not None and same else None

    def _by_jwt(self, token: str) -> Key | None:
        """HS256 with {iss: access key, exp, nbf}: anything else is refused, "alg": "none" included."""
        head, body, signature = token.split(".")
        try:
            header, claims = (json.loads(_unbase64(part)) for part in (head, body))
            given = _unbase64(signature)
            expires, starts = float(claims["exp"]), float(claims.get("nbf", 0))
            issuer = claims["iss"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise BadTokenError("bad_token", "the token is not a JWT with iss and exp") from None
        now = time.time()
        if not isinstance(header, dict) or header.get("alg") != "HS256" or not isinstance(issuer, str):
            raise BadTokenError("bad_token", "the token is not signed with HS256")
        wanted = hmac.new(self._jwt_secret(issuer).encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(wanted, given):
            return None
        if not starts <= now + _JWT_LEEWAY_S:
            raise BadTokenError("early_token", "the token is not valid yet (nbf)")
        if not now - _JWT_LEEWAY_S < expires:
            raise BadTokenError("late_token", "the token has expired (exp)")
        if not expires < now + _JWT_MAX_AGE_S:
            raise BadTokenError("bad_token", f"a token is valid for {_JWT_MAX_AGE_S:g} s at most (exp)")
        row = self._row(issuer)
        return _key(row) if row else None

    def _row(self, key_id: str) -> sa.RowMapping | None:
        if not key_id.isascii() or len(key_id) > 40:
            return None
        with self.engine.connect().execution_options(reading=True) as connection:
            live = (KEYS.c.id == key_id) & KEYS.c.revoked_at.is_(None)
            return connection.execute(sa.select(KEYS).where(live)).mappings().first()

    def _jwt_secret(self, key_id: str) -> str:
        return hmac.new(self._pepper, b"jwt " + key_id.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()

    # --- usage -----------------------------------------------------------------------------------------------------

    def count_request(self, key: Key) -> None:
        """Raises RefusedError over the key's requests a minute.

        A sliding minute, from two counters: what the last calendar minute had counts with the share of it that lies
        less than 60 s back, so that a burst around the full minute is not twice the limit.
        """
        now, limit = time.time(), float(key.limits.requests_per_minute)
        label, ends_at = _window("minute", now)
        with self.engine.begin() as connection:
            before = self._used(connection, key.id, _window("minute", ends_at - 90)[0])
            left = (ends_at - now) / 60  # of the last minute, in the sliding one
            if not _take(connection, key.id, label, ends_at, 1.0, max(0.0, limit - before * left)):
                room = limit - 1 - self._used(connection, key.id, label)
                wait = ends_at - now - 60 * room / before if before and room >= 0 else ends_at - now
                message = f"more than {limit:g} requests a minute with this key"
                raise RefusedError("rate_limited", message, min(60.0, max(1.0, wait)))
            old = (USAGE.c.key_id == key.id) & (USAGE.c.ends_at < now - 120) & USAGE.c.window.like("minute %")
            connection.execute(USAGE.delete().where(old))

    def charge(self, connection: sa.Connection, key: Key, video_s: float) -> float:
        """Take seconds of video from every window of a key, inside the caller's transaction; returns the fullest share.

        Checking and taking are one UPDATE, so concurrent requests cannot pass the limit together.

        Raises:
            RefusedError: a window would pass 95 %.
        """
        now, fullest = time.time(), 0.0
        for kind, limit in _limits(key):
            label, ends_at = _window(kind, now)
            if not _take(connection, key.id, label, ends_at, video_s, None if limit is None else REFUSE_SHARE * limit):
                message = (
                    f"this key's {kind} has no room for {video_s:g} s more (limit {limit:g} s, refused above 95 %)"
                )
                raise RefusedError("quota_exceeded", message, max(1.0, ends_at - now))
            if limit is not None:
                fullest = max(fullest, self._used(connection, key.id, label) / limit)
        return fullest

    def windows(self, key: Key) -> tuple[UsageWindow, ...]:
        """What the key has used this hour, day and month."""
        now = time.time()
        windows: list[UsageWindow] = []
        with self.engine.connect().execution_options(reading=True) as connection:
            for kind, limit in _limits(key):
                used = self._used(connection, key.id, _window(kind, now)[0])
                share = used / limit if limit else 0.0
                windows.append(UsageWindow(window=kind, used_s=used, limit_s=limit, share=share))
        return tuple(windows)

    def _used(self, connection: sa.Connection, key_id: str, label: str) -> float:
        here = (USAGE.c.key_id == key_id) & (USAGE.c.window == label)
        return float(connection.execute(sa.select(USAGE.c.used).where(here)).scalar() or 0.0)


def refund(connection: sa.Connection, key_id: str, video_s: float, charged_at: float) -> None:
    """Give back what a task that made no video took, inside the caller's transaction."""
    for kind in ("hour", "day", "month"):
        here = (USAGE.c.key_id == key_id) & (USAGE.c.window == _window(kind, charged_at)[0])
        less = sa.case((USAGE.c.used > video_s, USAGE.c.used - video_s), else_=0.0)
        connection.execute(USAGE.update().where(here).values(used=less))


def service_secret(state: str) -> bytes:
    """The service's own secret, made at first use. Losing it invalidates JWT secret keys and webhook signatures."""
    where = storage.join(state, "secret")
    if not storage.exists(where):
        storage.write_bytes(where, secrets.token_hex(32).encode())
        if storage.is_local(where):
            Path(storage.resolve(where)[1]).chmod(0o600)
    return storage.read_bytes(where)


def _take(
    connection: sa.Connection, key_id: str, label: str, ends_at: float, amount: float, limit: float | None
) -> bool:
    """Add to a window unless that passes the limit; one statement decides."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = dialect.insert(USAGE).values(key_id=key_id, window=label, used=0.0, ends_at=ends_at)
    connection.execute(row.on_conflict_do_nothing())
    here = (USAGE.c.key_id == key_id) & (USAGE.c.window == label)
    if limit is not None:
        here &= USAGE.c.used + amount <= limit
    return connection.execute(USAGE.update().where(here).values(used=USAGE.c.used + amount)).rowcount == 1


def _limits(key: Key) -> tuple[tuple[Literal["hour", "day", "month"], float | None], ...]:
    return (("hour", key.limits.hour_s), ("day", key.limits.day_s), ("month", key.limits.month_s))


def _window(kind: str, at: float) -> tuple[str, float]:
    """Label and end of the calendar window (UTC) a moment lies in."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    if kind == "minute":
        start, length = moment.replace(second=0, microsecond=0), dt.timedelta(minutes=1)
    elif kind == "hour":
        start, length = moment.replace(minute=0, second=0, microsecond=0), dt.timedelta(hours=1)
    elif kind == "day":
        start, length = moment.replace(hour=0, minute=0, second=0, microsecond=0), dt.timedelta(days=1)
    else:
        start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        length = (start + dt.timedelta(days=32)).replace(day=1) - start
    form = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[kind]
    return f"{kind} {start.strftime(form)}", (start + length).timestamp()


def _key(row: sa.RowMapping) -> Key:
    limits = Limits(
        hour_s=row["hour_s"],
        day_s=row["day_s"],
        month_s=row["month_s"],
        requests_per_minute=row["requests_per_minute"],
    )
    return Key(id=row["id"], name=row["name"], scopes=frozenset(row["scopes"].split()), limits=limits)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _unbase64(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from error
