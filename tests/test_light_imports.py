"""A light import stays light: the client and the command line start without torch, ray or a video library."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "deepspeed", "diffusers", "transformers", "av", "cv2", "mujoco", "scipy", "pyarrow")


@pytest.mark.parametrize(
    "module", ["kling", "kling.client", "kling.client.command_line", "kling.schema", "kling.errors"]
)
def test_light_import(module: str):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["data.__main__", "train.__main__", "serve.__main__"])
def test_help_of_an_application_starts_no_ray(module: str):
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'deepspeed') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["train.loop", "serve.work", "kling.pipeline"])
def test_a_rank_starts_without_what_it_does_not_use(module: str):
    """Each of them takes one to three seconds of a processor, in every process that a run or a service starts."""
    unused = ("transformers", "diffusers", "scipy", "torch._dynamo")
    code = f"import sys, {module}; print([m for m in {unused!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_readers_of_curation_start_without_torch():
    """A worker that only reads and decodes is started often, after each death: torch would be most of its start."""
    code = "import sys, data.pipeline; print([m for m in ('torch', 'transformers', 'diffusers') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_unknown_command_is_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "kling.client.command_line", "nonsense"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "nonsense" in result.stderr and "Traceback" not in result.stderr
