"""Tasks are rows: what was asked, how far it is, and who may write.

A task moves queued > running > completed | failed | cancelled and never back. A worker *claims* a task: it gets a lease
(until when it owns the task) and a fence (a number that grows with every claim). Every later write names the fence and
fails with `LostLeaseError` once somebody else has claimed the task, so that two workers can never both finish it.
A worker that dies stops renewing; when its lease has run out the task is claimed again, with the next attempt number.

SQLite (WAL) by default, PostgreSQL by URL. Times are seconds since 1970; clocks must agree to well under a lease.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kling.errors import StorageError

from .keys import refund

LEASE_S = 15.0
_NAME = re.compile(r"[\x21-\x7e]{1,128}")  # ids, and names that callers give
_FAIR_S = 600.0  # how long a started task counts against its key's turn
MAX_CRASHES = 4  # a task that took this many workers with it is not tried again

_metadata = sa.MetaData()
TASKS = sa.Table(
    "tasks",
    _metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(40), nullable=False),  # key id
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    # What was asked and what is made of it.
    sa.Column("request", sa.Text, nullable=False),  # JSON: kling.schema.GenerateRequest
    sa.Column("order", sa.Text, nullable=False),  # JSON: serve.orders.Order, all a worker needs
    sa.Column("adjustments", sa.Text, nullable=False),  # JSON list
    sa.Column("predicted_s", sa.Float, nullable=False),
    sa.Column("predicted_bytes", sa.BigInteger, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("deadline_at", sa.Float),
    # Who works on it.
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("crashes", sa.Integer, nullable=False, default=0),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(80)),
    sa.Column("lease_until", sa.Float, nullable=False, default=0.0),
    sa.Column("cancel", sa.Boolean, nullable=False, default=False),
    # How far it is.
    sa.Column("stage", sa.String(16), nullable=False, default=""),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("num_steps", sa.Integer, nullable=False, default=0),
    # How it ended.
    sa.Column("result", sa.Text),  # JSON: num_bytes, sha256
    sa.Column("error_code", sa.String(40)),
    sa.Column("error_message", sa.Text),
    # Whose names it answers to.
    sa.Column("idempotency_key", sa.String(128)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("external_id", sa.String(128)),
    sa.Column("parent", sa.String(40)),  # the task this one is a remix of
    sa.Column("charged_s", sa.Float, nullable=False, server_default="0"),  # taken from the key's quota
    sa.Column("kind", sa.String(8), nullable=False, server_default="text"),  # text | image | extend
    sa.Column("callback_url", sa.Text),
    sa.Column("callback_state", sa.String(10)),  # due | done | given up
    sa.Column("callback_tries", sa.Integer, nullable=False, default=0),
    sa.Column("callback_at", sa.Float, nullable=False, default=0.0),
    # Where the service was reached, if in the official form: its callbacks have that form, and tell of the start too.
    sa.Column("callback_base", sa.Text),
    sa.Column("callback_told", sa.String(10), nullable=False, server_default=""),  # the last state that was told
    sa.UniqueConstraint("owner", "idempotency_key"),
    sa.UniqueConstraint("owner", "external_id"),
    sa.Index("tasks_by_state", "state", "priority", "created_at"),
    sa.Index("tasks_by_owner", "owner", "created_at"),
)
WORKERS = sa.Table(
    "workers",
    _metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("status", sa.String(10), nullable=False),  # loading | ready | broken | gone
    sa.Column("detail", sa.Text, nullable=False, default=""),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("pids", sa.Text, nullable=False, default="[]"),  # of its ranks, for operators
    sa.Column("calibration", sa.Text),  # JSON: serve.admission.Calibration, measured by this worker at start
)


class LostLeaseError(Exception):
    """Another worker owns the task now, or it has ended; what was to be written is void."""


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """What admission hands to the store."""

    id: str  # from `new_id`
    owner: str
    request: str
    order: str
    adjustments: str
    predicted_s: float
    predicted_bytes: int
    priority: int
    deadline_s: float | None  # from now
    fingerprint: str
    idempotency_key: str | None = None
    external_id: str | None = None
    parent: str | None = None
    kind: str = "text"
    charged_s: float = 0.0
    callback_url: str | None = None
    callback_base: str | None = None


def new_id() -> str:
    return f"task_{secrets.token_hex(12)}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A task in a worker's hands."""

    id: str
    fence: int
    attempt: int
    order: str
    deadline_at: float | None
    created_at: float


class TaskStore:
    """The tasks of one service. Safe to use from several threads, processes and (PostgreSQL) machines."""

    def __init__(self, url: str):
        self.engine = connect(url)
        try:
            _metadata.create_all(self.engine)
            _add_columns(self.engine)
        except sa.exc.SQLAlchemyError as error:
            raise StorageError(f"cannot use the task database ({_reason(error)})", where=_masked(url)) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self.engine.connect().execution_options(reading=True) as connection:
            yield connection

    def add(self, connection: sa.Connection, task: NewTask) -> str:
        """Insert a queued task inside the caller's transaction; returns its id. The caller has looked for a replay."""
        values = {name: getattr(task, name) for name in NewTask.__dataclass_fields__ if name != "deadline_s"}
        now, due = time.time(), "due" if task.callback_url else None
        deadline = None if task.deadline_s is None else now + task.deadline_s
        connection.execute(
            TASKS.insert().values(state="queued", created_at=now, deadline_at=deadline, callback_state=due, **values)
        )
        return task.id

    def replayed(self, connection: sa.Connection, owner: str, idempotency_key: str) -> sa.RowMapping | None:
        where = (TASKS.c.owner == owner) & (TASKS.c.idempotency_key == idempotency_key)
        return connection.execute(sa.select(TASKS).where(where)).mappings().first()

    def get(self, task_id: str, owner: str | None = None) -> sa.RowMapping | None:
        """One task by id or by its owner's external id; None when there is none or it is somebody else's."""
        if not _NAME.fullmatch(task_id):  # PostgreSQL has no word for NUL, SQLite none for half a surrogate pair
            return None
        where = TASKS.c.id == task_id
        if owner is not None:
            where = (TASKS.c.owner == owner) & (where | (TASKS.c.external_id == task_id))
        with self.reading() as connection:
            return connection.execute(sa.select(TASKS).where(where)).mappings().first()

    def of_video(self, owner: str, sha256: str) -> str | None:
        """The latest completed task of a key whose video has this digest."""
        made = TASKS.c.result.contains(f'"sha256": "{sha256}"')
        mine = (TASKS.c.owner == owner) & (TASKS.c.state == "completed") & made
        with self.reading() as connection:
            newest = sa.select(TASKS.c.id).where(mine).order_by(TASKS.c.created_at.desc()).limit(1)
            return connection.execute(newest).scalar()

    def page(
        self, owner: str, *, limit: int, after: str | None = None, ascending: bool = False
    ) -> tuple[list[sa.RowMapping], bool]:
        """Up to ``limit`` tasks of a key by age, newest first unless ``ascending``; whether more follow."""
        key = sa.tuple_(TASKS.c.created_at, TASKS.c.id)
        query = sa.select(TASKS).where(TASKS.c.owner == owner)
        with self.reading() as connection:
            if after is not None:
                if not _NAME.fullmatch(after):
                    return [], False
                edge = connection.execute(
                    sa.select(TASKS.c.created_at, TASKS.c.id).where((TASKS.c.id == after) & (TASKS.c.owner == owner))
                ).first()
                if edge is None:
                    return [], False
                edge_key = sa.tuple_(sa.literal(edge[0]), sa.literal(edge[1]))
                query = query.where(key > edge_key if ascending else key < edge_key)
            order = (TASKS.c.created_at, TASKS.c.id) if ascending else (TASKS.c.created_at.desc(), TASKS.c.id.desc())
            rows = list(connection.execute(query.order_by(*order).limit(limit + 1)).mappings())
        return rows[:limit], len(rows) > limit

    def offset_page(self, owner: str, kind: str, *, limit: int, offset: int) -> list[sa.RowMapping]:
        mine = (TASKS.c.owner == owner) & (TASKS.c.kind == kind)
        query = sa.select(TASKS).where(mine).order_by(TASKS.c.created_at.desc(), TASKS.c.id.desc())
        with self.reading() as connection:
            return list(connection.execute(query.limit(limit).offset(offset)).mappings())

    # --- a worker's side -------------------------------------------------------------------------------------------

    def claim(self, worker: str, *, lease_s: float = LEASE_S) -> Claim | None:
        """Take the next task: an abandoned one first, then by priority, deadline, fairness between keys, and age."""
        while True:
            now = time.time()
            with self.reading() as connection:  # most looks find nothing, and take no lock to say so
                if connection.execute(sa.select(TASKS.c.id).where(_LEASABLE(now)).limit(1)).first() is None:
                    return None
            with self.engine.begin() as connection:
                row = connection.execute(_next_task(now)).mappings().first()
                if row is None:
                    return None
                if row["state"] == "queued" and row["deadline_at"] is not None and row["deadline_at"] < now:
                    _end(connection, row, "failed", code="deadline", message="its deadline passed while it was waiting")
                    continue
                crashed = row["state"] == "running" and row["worker"] is not None
                if crashed and row["crashes"] + 1 >= MAX_CRASHES:
                    message = f"{MAX_CRASHES} workers were lost while making it"
                    _end(connection, row, "failed", code="engine_lost", message=message)
                    continue
                claimed = connection.execute(
                    TASKS.update()
                    .where((TASKS.c.id == row["id"]) & (TASKS.c.fence == row["fence"]) & _LEASABLE(now))
                    .values(
                        state="running",
                        worker=worker,
                        lease_until=now + lease_s,
                        fence=row["fence"] + 1,
                        attempt=row["attempt"] + 1,
                        crashes=row["crashes"] + crashed,
                        started_at=row["started_at"] or now,
                    )
                )
                if claimed.rowcount == 1:
                    return Claim(
                        id=row["id"],
                        fence=row["fence"] + 1,
                        attempt=row["attempt"] + 1,
                        order=row["order"],
                        deadline_at=row["deadline_at"],
                        created_at=row["created_at"],
                    )

    def renew(self, claim: Claim, *, lease_s: float = LEASE_S, reached: dict[str, str | int] | None = None) -> bool:
        """Own the task for another lease; returns whether its owner wants it cancelled.

        Args:
            reached: ``stage``, ``step`` and ``num_steps``, where they are to be written too.

        Raises:
            LostLeaseError: it is no longer this worker's.
        """
        with self.engine.begin() as connection:
            self._write(connection, claim, lease_until=time.time() + lease_s, **(reached or {}))
            return bool(connection.execute(sa.select(TASKS.c.cancel).where(TASKS.c.id == claim.id)).scalar())

    def unwanted(self, claim: Claim) -> bool:
        """Whether to stop working on it, its owner's cancel or another worker's claim: a read, without a lock."""
        wanted = (TASKS.c.id == claim.id) & (TASKS.c.fence == claim.fence) & ~TASKS.c.cancel
        with self.reading() as connection:
            return connection.execute(sa.select(TASKS.c.id).where(wanted)).first() is None

    def complete(self, claim: Claim, result: dict[str, Any], *, reached: dict[str, str | int] | None = None) -> None:
        with self.engine.begin() as connection:
            values = {"state": "completed", "finished_at": time.time(), "result": json.dumps(result)}
            self._write(connection, claim, **{**(reached or {}), **values})

    def fail(self, claim: Claim, *, code: str, message: str) -> None:
        with self.engine.begin() as connection:
            self._write(
                connection, claim, state="failed", finished_at=time.time(), error_code=code, error_message=message
            )
            _give_back(connection, claim.id)

    def cancelled(self, claim: Claim) -> None:
        with self.engine.begin() as connection:
            self._write(connection, claim, state="cancelled", finished_at=time.time())
            _give_back(connection, claim.id)

    def release(self, claim: Claim, *, crashed: bool) -> None:
        """Give the task back at once (it stays `running`; whoever claims it next goes on from its saved latent)."""
        with self.engine.begin() as connection:
            # Keeping the worker's name counts the loss against the task (see `claim`); a drain is not its fault.
            self._write(connection, claim, lease_until=0.0, **({} if crashed else {"worker": None}))

    def _write(self, connection: sa.Connection, claim: Claim, **values: Any) -> None:
        mine = (TASKS.c.id == claim.id) & (TASKS.c.fence == claim.fence) & (TASKS.c.state == "running")
        if connection.execute(TASKS.update().where(mine).values(**values)).rowcount != 1:
            raise LostLeaseError(claim.id)

    # --- an owner's side -------------------------------------------------------------------------------------------

    def cancel(self, task_id: str) -> None:
        """A waiting task is cancelled now; a running one is marked, and its ranks stop within a step."""
        with self.engine.begin() as connection:
            waiting = (TASKS.c.id == task_id) & (TASKS.c.state == "queued")
            ended = connection.execute(
                TASKS.update().where(waiting).values(state="cancelled", cancel=True, finished_at=time.time())
            )
            if ended.rowcount:
                _give_back(connection, task_id)
            else:
                running = (TASKS.c.id == task_id) & (TASKS.c.state == "running")
                connection.execute(TASKS.update().where(running).values(cancel=True))

    def delete(self, task_id: str) -> None:
        """Forget an ended task. Its files are the caller's to remove first."""
        with self.engine.begin() as connection:
            connection.execute(
                TASKS.delete().where((TASKS.c.id == task_id) & TASKS.c.state.in_(("completed", "failed", "cancelled")))
            )

    def ended(self, task_ids: list[str]) -> list[str]:
        """Those that have ended or are gone."""
        going = TASKS.c.id.in_(task_ids) & TASKS.c.state.in_(("queued", "running"))
        with self.reading() as connection:
            left = set(connection.execute(sa.select(TASKS.c.id).where(going)).scalars())
        return [task_id for task_id in task_ids if task_id not in left]

    # --- the queue as a whole --------------------------------------------------------------------------------------

    def ahead(self, row: sa.RowMapping) -> tuple[int, float]:
        """How many waiting tasks go before this one, and the predicted seconds of all work before it."""
        now = time.time()
        with self.reading() as connection:
            order = list(connection.execute(_queue(now).with_only_columns(TASKS.c.id, TASKS.c.predicted_s)))
            running = connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(TASKS.c.predicted_s), 0.0)).where(TASKS.c.state == "running")
            ).scalar_one()
        before = 0.0
        for position, (task_id, seconds) in enumerate(order):
            if task_id == row["id"]:
                return position, before + float(running)
            before += seconds
        return 0, float(running)

    def backlog(self) -> tuple[int, float]:
        """Waiting tasks and the predicted seconds of all unfinished work."""
        unfinished = TASKS.c.state.in_(("queued", "running"))
        waiting = sa.func.sum(sa.case((TASKS.c.state == "queued", 1), else_=0))
        with self.reading() as connection:
            row = connection.execute(sa.select(waiting, sa.func.sum(TASKS.c.predicted_s)).where(unfinished)).one()
        return int(row[0] or 0), float(row[1] or 0.0)

    def running(self) -> list[sa.RowMapping]:
        with self.reading() as connection:
            return list(connection.execute(sa.select(TASKS).where(TASKS.c.state == "running")).mappings())

    # --- workers ---------------------------------------------------------------------------------------------------

    def report_worker(self, worker: str, **values: Any) -> None:
        """Say that a worker is alive, and what it is doing."""
        now = time.time()
        with self.engine.begin() as connection:
            known = connection.execute(WORKERS.update().where(WORKERS.c.id == worker).values(seen_at=now, **values))
            if known.rowcount == 0:
                connection.execute(WORKERS.insert().values(id=worker, seen_at=now, **{"status": "loading", **values}))
            connection.execute(WORKERS.delete().where(WORKERS.c.seen_at < now - 3600))

    def workers(self, *, within_s: float) -> list[sa.RowMapping]:
        """Workers that were alive so recently, the latest first."""
        recent = sa.select(WORKERS).where(WORKERS.c.seen_at > time.time() - within_s)
        with self.reading() as connection:
            return list(connection.execute(recent.order_by(WORKERS.c.seen_at.desc())).mappings())

    def forget_worker(self, worker: str) -> None:
        with self.engine.begin() as connection:
            # What it measured stays known for an hour: admission goes on with it while no replica runs.
            connection.execute(WORKERS.update().where(WORKERS.c.id == worker).values(status="gone"))


def connect(url: str) -> sa.Engine:
    """An engine whose write transactions are serial on SQLite (BEGIN IMMEDIATE) and whose commits reach the disk."""
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (sa.exc.ArgumentError, ImportError) as error:
        raise StorageError(f"not a database URL we can use ({error})", where=_masked(url)) from error
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _configure(connection, record):
            connection.isolation_level = None  # we say BEGIN ourselves
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=20000", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def _begin(connection):
            reading = connection.get_execution_options().get("reading", False)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _add_columns(engine: sa.Engine) -> None:
    """A database of an earlier version gets the columns it lacks (all of them have a default)."""
    for table in (TASKS, WORKERS):
        known = {column["name"] for column in sa.inspect(engine).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                made = sa.schema.CreateColumn(column).compile(engine)
                with engine.begin() as connection:
                    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {made}"))


def _LEASABLE(now: float) -> sa.ColumnElement[bool]:  # noqa: N802 - reads as a constant condition
    return (TASKS.c.state == "queued") | ((TASKS.c.state == "running") & (TASKS.c.lease_until < now))


def _queue(now: float) -> sa.Select:
    """Waiting tasks in the order they will run.

    Fairness: within one priority and deadline class a key's n-th waiting task competes with every other key's n-th,
    where the tasks a key started in the last minutes already count as its first ones.
    """
    busy = (
        sa.select(TASKS.c.owner, sa.func.count().label("num"))
        .where(TASKS.c.started_at > now - _FAIR_S)
        .group_by(TASKS.c.owner)
        .subquery()
    )
    turn = sa.func.row_number().over(
        partition_by=(TASKS.c.owner, TASKS.c.priority), order_by=(TASKS.c.created_at, TASKS.c.id)
    ) + sa.func.coalesce(busy.c.num, 0)
    has_deadline = sa.case((TASKS.c.deadline_at.is_(None), 1), else_=0)
    return (
        sa.select(TASKS)
        .select_from(TASKS.outerjoin(busy, busy.c.owner == TASKS.c.owner))
        .where(TASKS.c.state == "queued")
        .order_by(TASKS.c.priority.desc(), has_deadline, TASKS.c.deadline_at, turn, TASKS.c.created_at, TASKS.c.id)
    )


def _next_task(now: float) -> sa.Select:
    """One row: a task whose worker is gone, else the head of the queue."""
    abandoned = (
        sa.select(TASKS.c.id)
        .where((TASKS.c.state == "running") & (TASKS.c.lease_until < now))
        .order_by(TASKS.c.priority.desc(), TASKS.c.created_at)
        .limit(1)
        .scalar_subquery()
    )
    head = _queue(now).with_only_columns(TASKS.c.id).limit(1).scalar_subquery()
    return sa.select(TASKS).where(TASKS.c.id == sa.func.coalesce(abandoned, head))


def _end(connection: sa.Connection, row: sa.RowMapping, state: str, *, code: str, message: str) -> None:
    """End a task nobody owns; the fence moves on so that a late worker finds itself shut out."""
    ended = connection.execute(
        TASKS.update()
        .where((TASKS.c.id == row["id"]) & (TASKS.c.fence == row["fence"]))
        .values(state=state, error_code=code, error_message=message, finished_at=time.time(), fence=row["fence"] + 1)
    )
    if ended.rowcount:
        _give_back(connection, row["id"])


def _give_back(connection: sa.Connection, task_id: str) -> None:
    """In the transaction that ends a task without a video: its quota back, once. What the owner cancelled while it was
    made is paid for as far as it was made."""
    row = connection.execute(sa.select(TASKS).where(TASKS.c.id == task_id)).mappings().one()
    if row["charged_s"] > 0:
        made = row["step"] / row["num_steps"] if row["state"] == "cancelled" and row["num_steps"] else 0.0
        refund(connection, row["owner"], row["charged_s"] * (1 - made), row["created_at"])
        connection.execute(TASKS.update().where(TASKS.c.id == task_id).values(charged_s=row["charged_s"] * made))


def _masked(url: str) -> str:
    """The URL without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "the database URL"


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]
