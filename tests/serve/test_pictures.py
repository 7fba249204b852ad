"""Pictures and plans that callers send: what is taken, and what is refused before it can hurt."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from kling.camera.moves import SIGNS
from kling.scene.direct import direct
from kling.schema import _DIRECTIONS, MAX_PLANNED
from serve import pictures
from serve.admission import NotAdmittedError
from serve.media import Media
from serve.orders import Order

from .test_api import BODY, Api


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Api:
    return Api(tmp_path_factory.mktemp("pictures"))


def text(picture: Image.Image, form: str = "PNG", **options) -> str:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def bomb() -> str:
    """A PNG of 30,000 x 30,000 pixels in 900 kB of zeros."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 90_001 * 1000)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", body)).decode()


@pytest.mark.parametrize(
    "given",
    ["http://127.0.0.1/cat.png", "https://example.com/" + "x" * 40, "file:///etc/passwd", "%" * 40, "a" * 44,
     base64.b64encode(b"GIF89a" + b"\0" * 60).decode(), text(Image.new("RGB", (2000, 10))), bomb(),
     text(Image.new("RGB", (64, 64)))[:-30], "data:text/html;base64," + "a" * 44],
)  # fmt: skip
def test_what_is_no_picture_is_refused_and_the_field_named(api: Api, given: str):
    for field in ("first_frame", "last_frame"):
        answer = api.post(json={**BODY, field: given})
        assert answer.status_code == 422 and answer.json()["error"]["field"] == field, answer.text


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB")]
)
def test_pictures_are_fitted_to_the_video(api: Api, form: str, mode: str):
    given = text(Image.new(mode, (200, 100), 255 if mode in ("P", "L") else None), form)
    made = api.post(json={**BODY, "first_frame": f"data:image/{form.lower()};base64,{given}"})
    assert made.status_code == 202, made.text
    kept = Media(api.desk.settings.state, made.json()["task_id"]).load_picture("first")
    assert pictures.pixels(kept).shape == (64, 64, 3)
    api.http.post(f"/kling/v1.6/cancel/{made.json()['task_id']}", headers=api.key)
    api.http.delete(f"/kling/v1.6/tasks/{made.json()['task_id']}", headers=api.key)
    assert not Media(api.desk.settings.state, made.json()["task_id"]).load_plan()


def test_a_turned_photograph_stands_upright():
    turned = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pictures.opened(text(turned, "JPEG", exif=exif), "first_frame").size == (20, 40)


def test_a_refused_request_leaves_no_files(api: Api, tmp_path):
    small = Api(tmp_path)
    small.key = small.new_key(hour_s=0.1)
    picture = text(Image.new("RGB", (64, 64)))
    assert small.post(json={**BODY, "first_frame": picture}).status_code == 429
    assert not list((tmp_path / "media").rglob("*.png"))


def test_a_plan_is_taken_and_bounded(api: Api):
    plan = direct("a red ball bounces on the grass", duration_s=2.0).plan.model_dump(mode="json")
    made = api.post(json={**BODY, "plan": plan})
    assert made.status_code == 202 and made.json()["plan_url"], made.text
    row = api.desk.store.get(made.json()["task_id"])
    assert row is not None and Order.from_json(row["order"]).plan == plan
    assert api.get(made.json()["plan_url"]).json()["error"]["code"] == "no_plan", "not begun yet"
    many = {**plan, "objects": plan["objects"] * (MAX_PLANNED + 1)}
    wrong = {**plan, "objects": [{**plan["objects"][0], "mass_kg": -1}]}
    for bad, field in ((many, "plan"), (wrong, "plan.objects.0.mass_kg"), ({}, "plan.camera")):
        answer = api.post(json={**BODY, "plan": bad})
        assert answer.status_code == 422 and answer.json()["error"]["field"] == field


def test_switches_reach_the_order(api: Api):
    config = {"physics": False, "understanding": False, "camera_control": False, "realtime": True}
    made = api.post(json={"prompt": "a ball", "config": config}).json()
    row = api.desk.store.get(made["task_id"])
    assert row is not None and made["plan_url"] is None
    order = Order.from_json(row["order"])
    assert (order.physics, order.understanding, order.camera, order.chunk) == (False, False, False, 1)


def test_an_extension_needs_a_finished_video_of_ones_own(api: Api):
    waiting = api.post().json()["task_id"]
    for task_id, status in (("task_none", 404), (waiting, 409)):
        answer = api.post(json={**BODY, "extend": task_id})
        assert answer.status_code == status and answer.json()["error"]["field"] == "extend"


def test_camera_words_of_the_wire_are_those_of_the_camera():
    assert {kind: {d or None for d in names} for kind, names in _DIRECTIONS.items()} == {
        kind: set(signs) for kind, signs in SIGNS.items()
    }


def test_a_picture_of_an_absurd_shape_names_its_field():
    with pytest.raises(NotAdmittedError, match="ten times"):
        pictures.opened(text(Image.new("RGB", (10, 2000))), "last_frame")
