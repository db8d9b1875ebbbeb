"""What goes wrong between this machine and the Hub, through the real client."""

import subprocess
import sys

import huggingface_hub.constants as constants
import pytest
from helpers.weight_records import toy

import partzoo
from partzoo import hub
from partzoo.errors import WeightsError
from partzoo.weights.hub_file import hub_file

REPO = "tester/toy"
LOAD = "import sys, partzoo; partzoo.load(sys.argv[1], device='cpu')"


@pytest.fixture
def pushed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))
    folder = hub.save_pretrained(toy(), tmp_path / "saved")
    return server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})


def test_a_broken_transfer_goes_on_where_it_ended(server, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = bytes(range(256)) * 40
    server.commit(REPO, {"model.safetensors": content})
    server.interruptions = 1
    assert hub_file(REPO, "model.safetensors").read_bytes() == content
    assert server.ranges == ["bytes=5000-"]


def test_a_transfer_that_always_breaks_is_one_clear_error_and_can_be_repeated(server, pushed, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    server.interruptions = 20
    with pytest.raises(WeightsError, match=r"config.json of tester/toy cannot be downloaded .*: try again"):
        partzoo.load(f"hf-hub:{REPO}", device="cpu")
    server.interruptions = 0
    partzoo.load(f"hf-hub:{REPO}", device="cpu")


@pytest.mark.parametrize("force", [False, True], ids=["first", "again"])
@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, "401 Unauthorized; check HF_TOKEN"),
        (403, "403 Forbidden; ask for access"),
        (404, "404 Not Found; check HF_ENDPOINT"),
        (429, "429 Too Many Requests; wait a few minutes"),
        (503, "503 Service Unavailable; try again later"),
    ],
)
def test_a_refusal_of_the_hub_is_one_clear_error(server, pushed, status, answer, force, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.refusal = status
    with pytest.raises(WeightsError, match=f"cannot be downloaded: the Hub answers {answer}"):
        hub_file(REPO, "config.json", force=force)


def test_wrong_bytes_of_the_right_size_are_not_loaded(server, pushed):
    content = bytearray(server.find(REPO, pushed)[1]["model.safetensors"])
    content[-3] ^= 4
    server.commit(REPO, {"model.safetensors": bytes(content)})
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        partzoo.load(f"hf-hub:{REPO}", device="cpu")


def test_a_cache_that_cannot_be_written_is_one_clear_error(server, pushed, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot be written.*cache_dir=.*HF_HOME"):
        partzoo.load(f"hf-hub:{REPO}", cache_dir=tmp_path / "file" / "cache")


def test_two_processes_may_download_at_once(server, pushed, tmp_path, monkeypatch):
    for name, value in (("HF_ENDPOINT", server.url), ("HF_HOME", tmp_path / "home"), ("HF_HUB_DISABLE_XET", "1")):
        monkeypatch.setenv(name, str(value))
    command = [sys.executable, "-c", LOAD, f"hf-hub:{REPO}"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0), ("", 0)]
