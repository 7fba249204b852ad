"""The published OpenAPI, fuzzed: no input gives a 500, and what is answered is what is published."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS

from .test_api import Api

_PATHS = ["/kling/v1.6/generate", "/kling/v1.6/status/{task_id}", "/kling/v1.6/tasks", "/kling/v1.6/cancel/{task_id}",
          "/kling/v1.6/tasks/{task_id}", "/kling/v1.6/content/{task_id}", "/kling/v1.6/usage",
          "/kling/v1.6/recommendations", "/v1/videos", "/v1/videos/extensions", "/v1/videos/text2video",
          "/v1/videos/image2video", "/v1/videos/video-extend", "/v1/videos/{task_id}", "/v1/videos/edits",
          "/v1/videos/{task_id}/remix", "/v1/videos/{task_id}/content", "/kling/v1.6/plan/{task_id}",
          "/ready"]  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Api:
    return Api(tmp_path_factory.mktemp("fuzz"), max_waiting=100_000)


@pytest.mark.parametrize("path", _PATHS)
def test_nothing_breaks_it(api: Api, path: str):
    api.desk.store.report_worker("w", status="ready")
    schema = schemathesis.openapi.from_asgi("/openapi.json", api.app)
    checks = [CHECKS.get_one(f"{what}_conformance") for what in ("status_code", "content_type", "response_schema")]
    for method in schema[path]:
        operation = schema[path][method]

        @given(case=operation.as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        def fuzz(case):
            answer = case.call(headers=api.key)
            assert answer.status_code < 500, answer.text
            case.validate_response(answer, checks=checks)

        fuzz()
