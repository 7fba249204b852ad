"""The two foreign formats: the unmodified `openai` package, and requests in the Kling official form."""

import base64
import hashlib
import hmac
import io
import json
import time

import httpx
import openai
import pytest
from PIL import Image

from kling.scene.direct import direct
from serve.media import Media
from serve.openai_face import _unbracketed
from serve.pictures import pixels

from .test_api import Api


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Api:
    return Api(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def video() -> bytes:
    import numpy as np

    from kling.media.video import write_mp4

    file = io.BytesIO()
    write_mp4(file, np.zeros((17, 64, 64, 3), np.uint8), fps=8)
    return file.getvalue()


def finish(api: Api, video: bytes) -> None:
    """Be the worker: complete every waiting task with this video."""
    while (claim := api.desk.store.claim("worker")) is not None:
        Media(api.desk.settings.state, claim.id).save_video(video)
        sha256 = hashlib.sha256(video).hexdigest()
        api.desk.store.complete(claim, {"num_bytes": len(video), "sha256": sha256, "num_frames": 17})


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(file, "PNG")
    return file.getvalue()


class _InProcess(httpx.BaseTransport):
    """The application of this process as a transport."""

    def __init__(self, api: Api):
        self._api = api

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = [(k, v) for k, v in request.headers.items() if k not in ("host", "content-length")]
        made = self._api.http.request(
            request.method, str(request.url.raw_path, "ascii"), headers=dict(headers), content=request.read()
        )
        return httpx.Response(made.status_code, headers=dict(made.headers), content=made.content)


@pytest.fixture
def sdk(api: Api) -> openai.OpenAI:
    key = api.key["Authorization"].removeprefix("Bearer ")
    http = httpx.Client(transport=_InProcess(api))
    return openai.OpenAI(api_key=key, base_url="http://kling.test/v1", http_client=http, max_retries=0)


def test_the_openai_package_creates_polls_lists_downloads_deletes(api: Api, sdk: openai.OpenAI, video: bytes):
    made = sdk.videos.create(prompt="a ball", model="sora-2", size="1280x720", seconds="4")
    assert made.status == "queued" and made.object == "video" and made.seconds == "4"
    finish(api, video)
    done = sdk.videos.poll(made.id)
    assert done.status == "completed" and done.progress == 100 and done.completed_at
    assert sdk.videos.download_content(made.id).read() == video
    assert sdk.videos.download_content(made.id, variant="thumbnail").read()[:2] == b"\xff\xd8"
    others = [sdk.videos.create(prompt="x").id for _ in range(3)]
    assert [v.id for v in sdk.videos.list(limit=2)][:4] == [*others[::-1], made.id], "across pages"
    assert [v.id for v in sdk.videos.list(order="asc", limit=1)][-1] == others[-1]
    gone = sdk.videos.delete(made.id)
    assert gone.deleted and gone.id == made.id
    with pytest.raises(openai.NotFoundError):
        sdk.videos.retrieve(made.id)


def test_fields_of_ours_pass_through_a_form(api: Api, sdk: openai.OpenAI):
    extra = {"seed": 7, "steps": 3, "camera_control": {"type": "orbit", "direction": "left"}}
    made = sdk.videos.create(prompt="a ball", extra_body=extra)
    row = api.desk.store.get(made.id)
    assert row is not None
    order = json.loads(row["order"])
    assert order["seed"] == 7 and order["num_steps"] == 3 and "orbits left" in order["prompt"]


def test_a_form_holds_structures_of_any_depth(api: Api, sdk: openai.OpenAI):
    plan = direct("a red ball bounces on the grass", duration_s=2.0).plan.model_dump(mode="json")
    made = sdk.videos.create(
        prompt="x", extra_body={"plan": json.dumps(plan), "duration": 1, "external_task_id": "form"}
    )
    row = api.desk.store.get(made.id)
    assert row is not None and row["external_id"] == "form" and json.loads(row["order"])["plan"] == plan
    assert _unbracketed([("a[b][c]", "1"), ("a[b][d]", "2"), ("l[]", "x"), ("l[]", "y"), ("a[b][c][e]", "3")]) == {
        "a": {"b": {"c": "1", "d": "2"}},
        "l": ["x", "y"],
    }
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.videos.create(prompt="x", extra_body={"callback_url": "http://127.0.0.1/"})
    assert caught.value.param == "callback_url"


@pytest.mark.parametrize("form", [True, False])
def test_a_finished_video_is_extended(api: Api, sdk: openai.OpenAI, video: bytes, form: bool):
    made = sdk.videos.create(prompt="a ball")

    def extend(video_id: str):
        fields = {"prompt": "it goes on", "seconds": "4"}
        given = {"data": {**fields, "video[id]": video_id}} if form else {"json": {**fields, "video": {"id": video_id}}}
        return api.http.post("/v1/videos/extensions", headers=api.key, **given)

    early = extend(made.id)
    assert early.status_code == 409 and early.headers["x-should-retry"] == "false", "asking again would change nothing"
    finish(api, video)
    more = extend(made.id).json()
    row = api.desk.store.get(more["id"])
    assert row is not None and json.loads(row["order"])["before_frames"] == 17 and more["seconds"] == "6"
    assert extend("task_none").status_code == 404
    assert (
        api.http.post("/v1/videos/extensions", json={"prompt": "x"}, headers=api.key).json()["error"]["param"]
        == "video"
    )


def test_a_video_is_known_by_its_file_to_whoever_made_it(api: Api, sdk: openai.OpenAI):
    import numpy as np

    from kling.media.video import write_mp4

    file = io.BytesIO()
    write_mp4(file, np.full((17, 64, 64, 3), 99, np.uint8), fps=8)
    made = sdk.videos.create(prompt="a ball")
    finish(api, file.getvalue())
    assert sdk.videos.edit(prompt="a cube", video=file.getvalue()).remixed_from_video_id == made.id
    other = openai.OpenAI(api_key=api.new_key()["Authorization"].removeprefix("Bearer "), base_url=sdk.base_url,
                          http_client=httpx.Client(transport=_InProcess(api)), max_retries=0)  # fmt: skip
    for client, content in ((other, file.getvalue()), (sdk, b"no video"), (sdk, b"")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.videos.edit(prompt="a cube", video=content)
        assert caught.value.param == "video"
    for video in ("data:video/mp4;base64,%%%", "data:video/mp4;base64,", 7, [], {"id": 7}, {}, "\ud800"):
        body = json.dumps({"prompt": "x", "video": video})
        answer = api.http.post(
            "/v1/videos/edits", content=body, headers={**api.key, "Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 404) and answer.json()["error"]["message"]


def test_a_remix_with_an_idempotency_key_is_one_task(api: Api, sdk: openai.OpenAI):
    made, headers = sdk.videos.create(prompt="a ball"), {"Idempotency-Key": "remix-1"}
    ids = {sdk.videos.remix(made.id, prompt="a cube", extra_headers=headers).id for _ in range(2)}
    assert len(ids) == 1


def test_quotas_warn_in_every_format(api: Api):
    for path in ("/v1/videos", "/v1/videos/text2video"):
        key = api.new_key(hour_s=6.0)
        answer = api.post(path, json={"prompt": "x", "seconds": "5", "duration": "5"}, headers=key)
        assert "83%" in answer.headers["kling-quota-warning"]


def test_an_input_reference_becomes_the_first_frame_and_stays_with_a_remix(api: Api, sdk: openai.OpenAI):
    made = sdk.videos.create(prompt="a ball", input_reference=("a.png", png(90, 60), "image/png"))
    again = sdk.videos.remix(made.id, prompt="a cube")
    orders = [json.loads(row["order"]) for id in (made.id, again.id) if (row := api.desk.store.get(id))]
    assert orders[0]["first_frame"] and orders[0]["first_frame"] == orders[1]["first_frame"]
    kept = Media(api.desk.settings.state, again.id).load_picture("first")
    assert pixels(kept).shape == (64, 64, 3), "fitted to the video's size"


def test_a_remix_keeps_the_seed_and_names_its_parent(api: Api, sdk: openai.OpenAI):
    first = sdk.videos.create(prompt="a ball", extra_body={"seed": 7})
    second = sdk.videos.remix(first.id, prompt="a cube")
    assert second.remixed_from_video_id == first.id and second.prompt == "a cube"
    row = api.desk.store.get(second.id)
    assert row is not None and json.loads(row["order"])["seed"] == 7


def test_a_failed_task_is_an_answer_and_not_an_error(api: Api, sdk: openai.OpenAI):
    made = sdk.videos.create(prompt="a ball", extra_body={"priority": 9})
    claim = api.desk.store.claim("worker")
    assert claim is not None and claim.id == made.id
    api.desk.store.fail(claim, code="internal", message="it broke")
    failed = sdk.videos.poll(made.id)
    assert failed.status == "failed" and failed.error is not None and failed.error.message == "it broke"


def test_bad_input_is_in_their_form(api: Api, sdk: openai.OpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.videos.create(prompt="x", size="big")  # type: ignore[arg-type]
    assert caught.value.param == "config.resolution"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.videos.create(prompt="x", input_reference=("a.png", b"\x89PNG" * 9, "image/png"))
    assert caught.value.param == "first_frame"
    with pytest.raises(openai.NotFoundError):
        sdk.videos.retrieve("video_none")


# --- the official format ---------------------------------------------------------------------------------------------


def jwt(access: str, secret: str, **claims) -> dict[str, str]:
    now = time.time()
    given = {"iss": access, "exp": now + 1800, "nbf": now - 5, **claims}

    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    signed = f"{part({'alg': claims.pop('alg', 'HS256'), 'typ': 'JWT'})}.{part(given)}"
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return {"Authorization": f"Bearer {signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"}


def test_the_official_format_from_request_to_video(api: Api, video: bytes):
    from serve.keys import Limits

    key = api.desk.keys.create(name="jwt", scopes=frozenset({"generate", "read"}), limits=Limits())
    auth = jwt(key.id, key.jwt_secret)
    body = {"model_name": "kling-v1", "prompt": "a ball", "duration": "5", "aspect_ratio": "9:16", "mode": "std",
            "camera_control": {"type": "simple", "config": {"zoom": -5}}, "external_task_id": "o-1"}  # fmt: skip
    made = api.http.post("/v1/videos/text2video", json=body, headers=auth).json()
    assert made["code"] == 0 and made["data"]["task_status"] == "submitted" and made["request_id"]
    row = api.desk.store.get(made["data"]["task_id"])
    assert row is not None
    order = json.loads(row["order"])
    assert order["height_px"] > order["width_px"] and "zooms in" in order["prompt"]
    finish(api, video)
    for name in (made["data"]["task_id"], "o-1"):
        data = api.http.get(f"/v1/videos/text2video/{name}", headers=auth).json()["data"]
        assert data["task_status"] == "succeed" and data["task_info"]["external_task_id"] == "o-1"
    url = data["task_result"]["videos"][0]["url"]
    assert api.http.get(url.removeprefix("http://testserver")).content == video, "the link needs no key"
    listed = api.http.get("/v1/videos/text2video?pageNum=1&pageSize=5", headers=auth).json()["data"]
    assert [task["task_id"] for task in listed] == [made["data"]["task_id"]]


def test_official_image_to_video_takes_the_shape_of_its_picture_and_is_extended(api: Api, video: bytes):
    body = {"image": base64.b64encode(png(300, 150)).decode(), "duration": "5", "camera_control": None}
    made = api.post("/v1/videos/image2video", json=body).json()["data"]
    row = api.desk.store.get(made["task_id"])
    assert row is not None
    order = json.loads(row["order"])
    assert order["width_px"] > 1.5 * order["height_px"] and order["first_frame"] and row["kind"] == "image"
    assert api.post("/v1/videos/video-extend", json={"video_id": made["task_id"]}).json()["code"] == 1201, "not ready"
    finish(api, video)
    more = api.post("/v1/videos/video-extend", json={"video_id": made["task_id"]}).json()["data"]
    row = api.desk.store.get(more["task_id"])
    assert row is not None
    longer = json.loads(row["order"])
    assert (longer["width_px"], longer["fps"]) == (order["width_px"], order["fps"])
    assert longer["before_frames"] == order["num_frames"] and longer["num_frames"] == 41
    assert Media(api.desk.settings.state, more["task_id"]).load_before() == video
    for path, task in (("image2video", made), ("video-extend", more)):
        assert api.get(f"/v1/videos/{path}/{task['task_id']}").json()["data"]["task_id"] == task["task_id"]
        listed = [t["task_id"] for t in api.get(f"/v1/videos/{path}").json()["data"]]
        assert task["task_id"] in listed and not {made["task_id"], more["task_id"]} <= set(listed)
    other = api.new_key()
    assert api.post("/v1/videos/video-extend", json={"video_id": more["task_id"]}, headers=other).status_code == 404


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"exp": 1.0}, 1004), ({"exp": 9e12}, 1002), ({"nbf": 9e9}, 1003), ({"iss": "nobody"}, 1000),
     ({"alg": "none"}, 1002), ({"exp": "x"}, 1002)],
)  # fmt: skip
def test_forged_and_expired_tokens_are_refused(api: Api, claims: dict, code: int):
    from serve.keys import Limits

    key = api.desk.keys.create(name="jwt", scopes=frozenset({"read"}), limits=Limits())
    answer = api.http.get("/v1/videos/text2video", headers=jwt(key.id, key.jwt_secret, **claims))
    assert answer.status_code == 401 and answer.json()["code"] == code
    wrong = jwt(key.id, key.jwt_secret[::-1])
    assert api.http.get("/v1/videos/text2video", headers=wrong).json()["code"] == 1000
    assert api.http.get("/v1/videos/text2video").json()["code"] == 1001


@pytest.mark.parametrize(
    "change",
    [{"duration": "7"}, {"cfg_scale": 2}, {"aspect_ratio": "2:1"}, {"prompt": "x" * 2501}, {"prompt": ""},
     {"camera_control": {"type": "simple", "config": {"zoom": 1, "pan": 1}}},
     {"camera_control": {"type": "simple", "config": {"zoom": 11}}}, {"camera_control": {"type": "simple"}}],
)  # fmt: skip
def test_official_bad_input_has_their_codes(api: Api, change: dict):
    answer = api.post("/v1/videos/text2video", json={"prompt": "x", **change})
    assert answer.status_code == 400 and answer.json()["code"] == 1201
    for path in ("image2video", "video-extend"):
        assert api.post(f"/v1/videos/{path}", json={"prompt": "x"}).json()["code"] == 1201
    broken = {"prompt": "x", "image": base64.b64encode(b"no picture at all").decode()}
    assert api.post("/v1/videos/image2video", json=broken).json()["code"] == 1201
    assert api.post("/v1/videos/video-extend", json={"video_id": "task_none"}).json()["code"] == 1203
    assert api.get("/v1/videos/text2video/none").json()["code"] == 1203
    for video_id in ("\ud800", "\0", "a/b", "x" * 200, ""):
        body = json.dumps({"video_id": video_id})
        assert api.http.post("/v1/videos/video-extend", content=body, headers=api.key).json()["code"] == 1201
    wrong = api.http.put("/v1/videos/text2video", headers=api.key)
    assert wrong.status_code == 404 and wrong.json()["code"] == 1202
