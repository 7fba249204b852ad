"""Rows as their owners see them."""

import json
import time

import sqlalchemy as sa

from kling.schema import API_PREFIX, FINAL_STATES, Adjustment, Granted, Progress, Task, TaskProblem, VideoResult

from .links import signed_link
from .orders import Order

_OFFICIAL_STATUS = {"queued": "submitted", "running": "processing", "completed": "succeed"}
_DECODE_SHARE = 0.1  # of the whole time, for the progress bar


def task_view(row: sa.RowMapping, ahead: tuple[int, float] | None = None, num_workers: int = 1) -> Task:
    """A task row as JSON's model.

    Args:
        ahead: for a waiting task, how many go before it and their predicted seconds.
        num_workers: replicas that share the queue.
    """
    order = Order.from_json(row["order"])
    task_id, state = row["id"], row["state"]
    fraction = _fraction(row)
    eta = _eta_s(row, fraction, ahead, num_workers)
    result = None
    if row["result"]:
        made = json.loads(row["result"])
        content = f"{API_PREFIX}/content/{task_id}"
        result = VideoResult(
            video_url=content,
            thumbnail_url=f"{content}?variant=thumbnail",
            spritesheet_url=f"{content}?variant=spritesheet",
            duration_s=(order.total_frames - 1) / order.fps,
            **made,
        )
    error = TaskProblem(code=row["error_code"], message=row["error_message"] or "") if row["error_code"] else None
    return Task(
        task_id=task_id,
        status=state,
        prompt=json.loads(row["request"])["prompt"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        attempt=row["attempt"],
        priority=row["priority"],
        queue_position=ahead[0] + 1 if state == "queued" and ahead is not None else None,
        eta_s=None if eta is None else round(eta, 2),
        progress=Progress(
            stage="" if state in FINAL_STATES else row["stage"],
            step=row["step"],
            num_steps=row["num_steps"] or order.num_steps,
            fraction=round(fraction, 4),
        ),
        granted=Granted(
            width_px=order.width_px,
            height_px=order.height_px,
            num_frames=order.total_frames,
            fps=order.fps,
            num_steps=order.num_steps,
            guidance=order.guidance,
            seed=order.seed,
        ),
        adjustments=tuple(Adjustment(**change) for change in json.loads(row["adjustments"])),
        result=result,
        error=error,
        external_task_id=row["external_id"],
        status_url=f"{API_PREFIX}/status/{task_id}",
        stream_url=f"{API_PREFIX}/stream/{task_id}",
        events_url=f"{API_PREFIX}/events/{task_id}",
        plan_url=f"{API_PREFIX}/plan/{task_id}" if order.planned else None,
    )


def official_view(row: sa.RowMapping, base_url: str, secret: bytes) -> dict:
    """A task row in the Kling official form, as its routes and its callbacks tell it."""
    view, order = task_view(row), Order.from_json(row["order"])
    updated = view.finished_at or view.started_at or view.created_at
    info: dict = {"external_task_id": view.external_task_id}
    if row["kind"] == "extend" and row["parent"]:
        before_s = (order.before_frames - 1) / order.fps
        info["parent_video"] = _official_video(row["parent"], before_s, base_url, secret)
    task = {
        "task_id": view.task_id,
        "task_status": _OFFICIAL_STATUS.get(view.status, "failed"),
        "task_status_msg": view.error.message if view.error else ("cancelled" if view.status == "cancelled" else ""),
        "task_info": info,
        "created_at": int(view.created_at * 1000),
        "updated_at": int(updated * 1000),
    }
    if view.status == "completed":
        video = _official_video(view.task_id, view.granted.duration_s, base_url, secret)
        task["task_result"] = {"videos": [video]}
    return task


def _official_video(task_id: str, duration_s: float, base_url: str, secret: bytes) -> dict:
    return {"id": task_id, "url": f"{base_url}{signed_link(secret, task_id)}", "duration": f"{duration_s:g}"}


def _eta_s(row: sa.RowMapping, fraction: float, ahead: tuple[int, float] | None, num_workers: int) -> float | None:
    """Predicted while it waits and starts; from its own pace once that shows. None: not known, or ended."""
    if row["state"] == "queued" and ahead is not None:
        return ahead[1] / max(1, num_workers) + row["predicted_s"]
    if row["state"] != "running":
        return None
    elapsed = time.time() - row["started_at"]
    return elapsed * (1 - fraction) / fraction if fraction > 0.05 else max(0.0, row["predicted_s"] - elapsed)


def _fraction(row: sa.RowMapping) -> float:
    if row["state"] == "completed":
        return 1.0
    if not row["num_steps"]:
        return 0.0
    denoised = row["step"] / row["num_steps"]
    return denoised * (1 - _DECODE_SHARE)
