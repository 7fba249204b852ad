"""Foreign clients on the running service: the unmodified `openai` package, the Kling official form, a full queue."""

import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from kling.media.video import read_frames
from kling.schema import VideoConfig

from .conftest import MAX_WAITING, Service, until
from .test_faces import png

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
SMALL = {"seed": 1, "steps": 2, "duration": 1}


def _sdk(service: Service, key: str, **options) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{service.url}/v1", **options)


def _size(jpeg: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(jpeg), formats=["JPEG"]).size


def test_the_openai_package_from_a_prompt_to_a_deleted_video(service: Service):
    sdk = _sdk(service, service.new_key())
    made = sdk.videos.create(prompt="a red ball", size="96x64", seconds="4", extra_body=SMALL)  # type: ignore[arg-type]
    assert (made.object, made.status, made.error) == ("video", "queued", None)
    done = sdk.videos.poll(made.id)
    assert (done.status, done.progress, done.id) == ("completed", 100, made.id)
    assert done.completed_at is not None and done.created_at <= done.completed_at
    video = sdk.videos.download_content(made.id).read()
    frames, fps = read_frames(video)
    width, height = map(int, done.size.split("x"))
    assert frames.shape[1:] == (height, width, 3) and (len(frames) - 1) / fps == float(done.seconds)
    assert _size(sdk.videos.download_content(made.id, variant="thumbnail").read()) == (width, height)
    sheet = _size(sdk.videos.download_content(made.id, variant="spritesheet").read())
    assert sheet[0] > width and sheet[1] > height

    picture = ("a.png", png(64, 64), "image/png")
    pictured = sdk.videos.create_and_poll(prompt="a cube", input_reference=picture, extra_body=SMALL)
    again = sdk.videos.remix(made.id, prompt="a blue cube")
    edited = sdk.videos.edit(prompt="a green cone", video=video)  # this version of the package sends files only
    longer = sdk.videos.extend(prompt="it rolls on", video=video, seconds="4", extra_body=SMALL)
    assert pictured.status == "completed" and again.remixed_from_video_id == edited.remixed_from_video_id == made.id
    later = [sdk.videos.poll(each.id) for each in (again, edited, longer)]
    assert [each.status for each in later] == ["completed"] * 3
    extended, _ = read_frames(sdk.videos.download_content(longer.id).read())
    assert len(extended) > len(frames)
    ids = [longer.id, edited.id, again.id, pictured.id, made.id]
    assert [video.id for video in sdk.videos.list(limit=2)] == ids, "page by page, newest first"

    running = sdk.videos.create(prompt="a ball", extra_body={"steps": 200})
    for video_id in (running.id, *ids):
        assert sdk.videos.delete(video_id).deleted
        with pytest.raises(openai.NotFoundError):
            sdk.videos.retrieve(video_id)
    assert not list(sdk.videos.list())


def test_what_the_openai_package_raises(service: Service):
    sdk = _sdk(service, service.new_key(requests_per_minute=1), max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        _sdk(service, "kling_no_key").videos.list()
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.videos.extend(prompt="x", video=("a.mp4", b"no id", "video/mp4"), seconds="4")
    assert refused.value.param == "video"
    sdk.videos.create(prompt="a ball", extra_body=SMALL)
    with pytest.raises(openai.RateLimitError) as limited:
        sdk.videos.create(prompt="a ball", extra_body=SMALL)
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60


def test_the_official_form_from_a_picture_to_a_longer_video(service: Service):
    headers = {"Authorization": f"Bearer {service.new_key()}"}
    with httpx.Client(base_url=f"{service.url}/v1/videos", headers=headers, timeout=60) as http:

        def ended(path: str, name: str) -> dict:
            return until(
                lambda: (t := http.get(f"{path}/{name}").json()["data"])["task_status"] in ("succeed", "failed") and t,
                120,
            )

        image = base64.b64encode(png(96, 64)).decode()
        body = {"model_name": "kling-v1", "image": image, "duration": "5", "external_task_id": "film-1"}
        made = http.post("image2video", json=body).json()
        assert made["code"] == 0 and made["data"]["task_status"] == "submitted"
        first = ended("image2video", "film-1")
        assert first["task_status"] == "succeed" and first["task_info"] == {"external_task_id": "film-1"}
        taken = http.post("image2video", json=body)
        assert (taken.status_code, taken.json()["code"]) == (400, 1201), "that name has its task"
        [video] = first["task_result"]["videos"]
        before, fps = read_frames(httpx.get(video["url"], timeout=60).content)
        assert len(before) == 5 * fps + 1 and before.shape[2] > before.shape[1]
        more = http.post("video-extend", json={"video_id": video["id"]}).json()["data"]["task_id"]
        longer = ended("video-extend", more)
        assert longer["task_info"]["parent_video"]["id"] == video["id"]
        after, _ = read_frames(httpx.get(longer["task_result"]["videos"][0]["url"], timeout=60).content)
        assert len(after) == len(before) + 5 * fps


def test_a_full_queue_refuses_says_when_to_come_again_and_lets_in_whoever_does(service: Service):
    waiting = {"prompt": "a ball", "config": {"steps": 200, "seed": 1}}
    bearer = service.new_key(requests_per_minute=10_000)
    with service.http(bearer) as http:
        made, answer = [], http.post("/generate", json=waiting)
        while answer.status_code == 202:
            made.append(answer.json()["task_id"])
            assert len(made) <= MAX_WAITING + 3, "the queue has no end"
            answer = http.post("/generate", json=waiting)
        assert len(made) >= MAX_WAITING and answer.status_code == 503
        assert answer.json()["error"]["code"] == "queue_full" and int(answer.headers["retry-after"]) >= 1
        with pytest.raises(openai.InternalServerError) as refused:
            _sdk(service, bearer, max_retries=0).videos.create(prompt="a ball")
        assert refused.value.status_code == 503 and int(refused.value.response.headers["retry-after"]) >= 1
        official = httpx.post(f"{service.url}/v1/videos/text2video", json={"prompt": "x"}, headers=http.headers)
        assert (official.status_code, official.json()["code"]) == (429, 1303) and int(
            official.headers["retry-after"]
        ) >= 1
        assert http.get("/status/" + made[-1]).status_code == 200, "who asks after a task is not refused"
        for task_id in made:
            assert http.post(f"/cancel/{task_id}").status_code == 200
    with service.client() as client:
        task = client.wait(client.generate("a ball", config=VideoConfig(seed=1, steps=2, duration=1)).task_id)
        assert task.status == "completed"
