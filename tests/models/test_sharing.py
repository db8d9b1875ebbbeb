import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
import safetensors.torch
import torch
from helpers.command_line import partzoo as command
from helpers.hub_server import serve
from helpers.weight_records import describe, record_of, toy

import partzoo
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.models import sharing as hub
from partzoo.models.registry import aliases, find
from partzoo.weights import store as weights
from partzoo.weights.card import card
from partzoo.weights.folder import fetch_repo
from partzoo.weights.tensors import DIGEST, write_weights

REPO = "tester/toy"
CLONE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    return toy()


@pytest.fixture(autouse=True)
def own_notes(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))


@pytest.fixture
def pushed(server, model, tmp_path):
    """Return the commit of a repository that holds a toy model."""
    folder = hub.save_pretrained(model, tmp_path / "saved")
    return server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def record(server, model, tmp_path):
    """Return a record whose file is only in the repository."""
    folder = hub.save_pretrained(model, tmp_path / "checkpoints")
    commit = server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    return record_of(model, (describe(folder / "model.safetensors"),), hub={"repo": REPO, "revision": commit})


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


# folders


def test_a_saved_folder_loads_by_every_name(model, tmp_path, monkeypatch):
    folder = hub.save_pretrained(model, tmp_path / "toy")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for name in (folder, str(folder), f"local-dir:{folder}", folder / "model.safetensors"):
        assert same(model, partzoo.load(name, device="cpu", dtype="float32")), name
    assert same(model, hub.from_pretrained(folder, device="cpu", dtype="float32"))


def test_a_saved_configuration_comes_back(tmp_path):
    wide = partzoo.load("toy-vit", device="cpu", dtype="float32", dim=32)
    loaded = hub.from_pretrained(hub.save_pretrained(wide, tmp_path), device="cpu", dtype="float32")
    assert loaded.config == wide.config and loaded.architecture == "toy-vit"


def test_without_weights_a_place_gives_its_configuration_alone(tmp_path):
    wide = partzoo.load("part-vitt8", pretrained=False, device="cpu", dtype="float32", dim=24, depth=1, heads=3)
    folder = hub.save_pretrained(wide, tmp_path)
    for name in (folder, f"local-dir:{folder}", folder / "model.safetensors"):
        loaded = partzoo.load(name, pretrained=False, device="cpu", dtype="float32")
        assert loaded.config == wide.config and not same(loaded, wide), name
    (folder / "model.safetensors").unlink()
    assert partzoo.load(folder, pretrained=False, device="cpu").config == wide.config


def test_without_weights_a_repository_sends_its_configuration_alone(model, server, tmp_path):
    hub.push_to_hub(model, REPO, token="hf_token")
    sent = len(server.requests)
    assert partzoo.load(f"hf-hub:{REPO}", pretrained=False, device="cpu", dtype="float32").config == model.config
    assert not [request for request in server.requests[sent:] if "model.safetensors" in str(request)]


def test_shards_in_a_folder_load(model, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHARD_BYTES", 20_000)
    folder = hub.save_pretrained(model, tmp_path)
    assert not (folder / "model.safetensors").exists()
    assert same(model, hub.from_pretrained(folder, device="cpu", dtype="float32"))


def test_what_is_not_of_the_zoo_is_not_saved(tmp_path):
    named = torch.nn.Linear(2, 2)
    named.architecture = "toy-vit"
    for model in (torch.nn.Linear(2, 2), named):
        with pytest.raises(UsageError, match="Linear has no architecture and config"):
            hub.save_pretrained(model, tmp_path)


def test_an_unknown_record_is_one_clear_error(model, tmp_path):
    with pytest.raises(UnknownModelError, match=r"no released weights 'toy-vit\.none'"):
        hub.save_pretrained(model, tmp_path, record="toy-vit.none")


def test_a_quantized_model_is_not_saved(tmp_path):
    quantized = partzoo.load("toy-vit", device="cpu", dtype="int8")
    with pytest.raises(UsageError, match=r"quantized .*dtype='float32'"):
        hub.save_pretrained(quantized, tmp_path / "q")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"architecture": "vit_small", "num_classes": 10}'])
def test_a_damaged_config_is_one_clear_error(model, tmp_path, content):
    folder = hub.save_pretrained(model, tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=r"config\.json names no architecture and config of partzoo"):
        partzoo.load(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("<html></html>", "is a web page"),
        ("", "is empty"),
    ],
)
def test_what_stands_in_for_a_config_is_recognized(model, tmp_path, content, reason):
    folder = hub.save_pretrained(model, tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=rf"config\.json {reason}"):
        partzoo.load(folder)


def test_a_model_of_a_newer_partzoo_says_so(model, tmp_path):
    folder = hub.save_pretrained(model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == 1
    (folder / "config.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(
        WeightsError, match=r"config\.json was written by a newer version of partzoo .*: upgrade partzoo"
    ):
        partzoo.load(folder)
    file = folder / "model.safetensors"
    with safetensors.safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["partzoo_format"] == "1"
    safetensors.torch.save_file({"a": torch.zeros(1)}, file, header | {"partzoo_format": "2"})
    with pytest.raises(WeightsError, match=r"model\.safetensors was written by a newer version of partzoo"):
        partzoo.load(file)
    # The first files stated no format, and had no digest.
    header.pop("partzoo_format")
    header.pop(DIGEST)
    (folder / "config.json").write_text(json.dumps({name: config[name] for name in ("architecture", "config")}))
    safetensors.torch.save_file(model.state_dict(), file, header)
    assert partzoo.load(folder).architecture == partzoo.load(file).architecture == model.architecture


def test_a_folder_without_weights_or_none_at_all_is_one_clear_error(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no model\.safetensors"):
        partzoo.load(tmp_path)
    with pytest.raises(WeightsError, match="is not a folder"):
        partzoo.load(f"local-dir:{tmp_path / 'absent'}")


def test_the_card_shows_what_the_record_states(model, tmp_path):
    [path] = write_weights(tmp_path / "checkpoints" / "a.safetensors", model.state_dict(), "toy-vit", model.config)
    record = record_of(model, (describe(path),), parents=("toy-vit.old",), labels_used=True)
    text = card("toy-vit", model.config, record)
    front = text.split("---")[1]
    assert "license: apache-2.0" in front and "library_name: partzoo" in front
    for fact in (
        "# toy-vit.test",
        "| top-1 | 0.125 | none | `none` |",
        "toy-vit.old",
        "any CPU",
        "python -m pytest",
    ):
        assert fact in text
    assert "| labels used in training | yes |" in text
    assert "Nothing is recorded" in card("toy-vit", model.config)


# repositories


def test_a_repository_loads_and_a_pinned_one_makes_no_second_request(server, pushed, model):
    loaded = partzoo.load(f"hf-hub:{REPO}@{pushed}", device="cpu", dtype="float32")
    assert same(model, loaded)
    fetched = len(server.requests)
    assert fetched >= 2
    partzoo.load(f"hf-hub:{REPO}@{pushed}", device="cpu", dtype="float32")
    assert len(server.requests) == fetched


def test_a_branch_follows_the_hub_and_local_files_only_does_not(server, pushed, model, tmp_path):
    hub.from_pretrained(REPO, device="cpu", dtype="float32")
    other = toy(seed=2)
    folder = hub.save_pretrained(other, tmp_path / "other")
    server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    before = len(server.requests)
    assert same(model, hub.from_pretrained(REPO, device="cpu", dtype="float32", local_files_only=True))
    assert len(server.requests) == before
    assert same(other, hub.from_pretrained(REPO, device="cpu", dtype="float32"))


def test_shards_in_a_repository_load(server, model, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHARD_BYTES", 20_000)
    folder = hub.save_pretrained(model, tmp_path / "saved")
    commit = server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    for _ in range(2):
        assert same(model, hub.from_pretrained(f"{REPO}@{commit}", device="cpu", dtype="float32"))
        requests = len(server.requests)
    assert requests == len(server.requests)


def test_offline_without_a_copy_says_what_to_do(server, pushed, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE.*partzoo download hf-hub:tester/toy.*HF_HOME"):
        partzoo.load(f"hf-hub:{REPO}")
    assert server.requests == []


def test_a_snapshot_without_files_is_not_taken_for_a_copy(server, pushed, model, tmp_path):
    cached = tmp_path / "cache" / "models--tester--toy"
    (cached / "snapshots" / pushed / "empty").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(pushed)
    with pytest.raises(WeightsError, match=r"not in .*partzoo download hf-hub:tester/toy"):
        partzoo.load(f"hf-hub:{REPO}", local_files_only=True)
    assert same(model, partzoo.load(f"hf-hub:{REPO}", device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("hf-hub:tester/absent", "no repository 'tester/absent'.*HF_TOKEN"),
        (f"hf-hub:{REPO}@v9", "no revision 'v9'"),
        ("hf-hub:not a name", "write hf-hub:owner/name"),
    ],
)
def test_a_wrong_repository_is_one_clear_error(server, pushed, name, message):
    with pytest.raises(WeightsError, match=message):
        partzoo.load(name)


@pytest.mark.parametrize("name", ["hf-hub:o/--x", "hf-hub:../x"])
def test_the_download_of_an_impossible_repository_is_one_clear_error(server, name):
    ran = command("download", name)
    assert ran.code and "Unexpected" not in ran.err and "write hf-hub:owner/name" in ran.err, ran.err


def test_a_repository_of_another_kind_is_one_clear_error(server):
    server.commit(REPO, {"README.md": b"hello"})
    with pytest.raises(WeightsError, match=r"no config\.json of tester/toy.*push_to_hub"):
        partzoo.load(f"hf-hub:{REPO}")
    server.commit(REPO, {"config.json": b'{"architecture": "toy-vit", "config": {}}'})
    with pytest.raises(WeightsError, match=r"no model\.safetensors\.index\.json of tester/toy"):
        partzoo.load(f"hf-hub:{REPO}")


def test_a_hub_out_of_reach_is_one_clear_error(server, pushed, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(WeightsError, match=r"the Hub is out of reach.*partzoo download"):
        partzoo.load(f"hf-hub:{REPO}")


# records on the Hub


def test_a_record_is_fetched_once_and_checked(server, record, model):
    assert [result.state for result in weights.verify(record)] == ["absent"]
    [path] = weights.resolve(record)
    fetched = len(server.requests)
    assert fetched > 0
    assert weights.resolve(record) == weights.resolve(record, local_files_only=True) == [path]
    assert weights.download(record) == [path]
    assert [result.state for result in weights.verify(record)] == ["ok"]
    assert len(server.requests) == fetched


def test_a_recorded_branch_in_the_cache_makes_no_request(server, record):
    record = dataclasses.replace(record, hub={"repo": REPO, "revision": "main"})
    weights.resolve(record)
    fetched = len(server.requests)
    weights.resolve(record)
    assert len(server.requests) == fetched


def test_a_record_that_is_not_here_offline_says_what_to_do(server, record, tmp_path):
    with pytest.raises(WeightsError, match=r"toy-vit\.test .*local_files_only.*'partzoo download toy-vit\.test'"):
        weights.resolve(record, local_files_only=True, cache_dir=tmp_path / "empty")
    assert server.requests == []


def test_what_the_hub_sends_is_checked(server, record, tmp_path):
    wrong = dataclasses.replace(record, files=(dataclasses.replace(record.files[0], sha256="0" * 64),))
    with pytest.raises(WeightsError, match=r"damaged.*partzoo download toy-vit\.test"):
        weights.resolve(wrong)


def test_download_repairs_a_damaged_copy(server, record):
    [path] = weights.resolve(record)
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[-3] ^= 4
    blob.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        weights.resolve(record)
    assert weights.download(record) == [path]
    assert [result.state for result in weights.verify(record)] == ["ok"]


def test_download_repairs_a_damaged_repository(server, pushed):
    name = f"hf-hub:{REPO}@{pushed}"
    reference = partzoo.load(name, device="cpu", dtype="float32")
    blob = (fetch_repo(REPO, pushed) / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-3] ^= 4
    blob.write_bytes(data)
    with pytest.raises(WeightsError, match=f"is damaged: .*: run 'partzoo download {name}'"):
        partzoo.load(name, device="cpu", dtype="float32")
    assert command("download", name).code == 0
    assert same(reference, partzoo.load(name, device="cpu", dtype="float32"))


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b'{"architecture": "toy-'], ids=["lost", "zeros", "torn"])
def test_download_repairs_a_damaged_configuration(server, pushed, content):
    name = f"hf-hub:{REPO}@{pushed}"
    blob = (fetch_repo(REPO, pushed) / "config.json").resolve()
    blob.write_bytes(content)
    with pytest.raises(WeightsError):
        partzoo.load(name, device="cpu", dtype="float32")
    assert command("download", name).code == 0
    partzoo.load(name, device="cpu", dtype="float32")


def test_a_record_that_names_a_file_the_hub_lacks_is_one_clear_error(server, record):
    commit = server.commit("tester/other", {"README.md": b"hello"})
    with pytest.raises(WeightsError, match=r"no model\.safetensors of tester/other.*record of toy-vit\.test"):
        weights.resolve(dataclasses.replace(record, hub={"repo": "tester/other", "revision": commit}))


def test_a_revision_other_than_the_recorded_one_is_requested(server, record, tmp_path):
    folder = hub.save_pretrained(toy(seed=2), tmp_path / "other")
    commit = server.commit(REPO, {"model.safetensors": (folder / "model.safetensors").read_bytes()}, "next")
    [path] = weights.resolve(record, revision="next")
    assert path.parent.name == commit


# uploads


def test_a_pushed_model_comes_back(server, model):
    commit = hub.push_to_hub(model, REPO, token="hf_test")
    assert set(server.find(REPO, commit)[1]) == {"README.md", "config.json", "model.safetensors"}
    assert b'partzoo.load("hf-hub:tester/toy")' in server.find(REPO, commit)[1]["README.md"]
    assert same(model, hub.from_pretrained(f"{REPO}@{commit}", device="cpu", dtype="float32"))
    assert hub.push_to_hub(toy(seed=2), REPO, token="hf_test") != commit


@pytest.mark.parametrize(
    ("options", "private"), [({}, False), ({"private": False}, False), ({"private": True}, True)], ids=str
)
def test_a_repository_is_private_only_on_request(server, model, options, private):
    hub.push_to_hub(model, REPO, token="hf_test", **options)
    assert (REPO in server.private) == private


def test_a_push_goes_to_its_branch_and_leaves_the_others_alone(server, model):
    main = hub.push_to_hub(model, REPO, token="hf_test")
    server.commit(REPO, {}, "next")
    other = toy(seed=2)
    commit = hub.push_to_hub(other, REPO, token="hf_test", revision="next")
    assert server.branches[REPO] == {"main": main, "next": commit}
    options = {"device": "cpu", "dtype": "float32"}
    assert same(other, hub.from_pretrained(f"{REPO}@next", **options))
    assert same(other, hub.from_pretrained(REPO, revision="next", **options))
    assert same(other, partzoo.load(f"hf-hub:{REPO}", revision=commit, **options))
    assert same(model, hub.from_pretrained(REPO, **options))


def matrices(weights):
    """Precisions of the matrices in a file's tensors."""
    return {value.dtype for value in weights.values() if value.ndim > 1}


def test_a_push_has_the_message_token_record_and_precision_that_are_named(server, model, record):
    options = {"record": record, "dtype": torch.bfloat16, "token": "hf_mine", "message": "After the second night"}
    commit = hub.push_to_hub(model, "tester/other", **options)
    assert server.messages[commit] == "After the second night" and server.tokens == {"hf_mine"}
    files = server.find("tester/other", commit)[1]
    assert matrices(safetensors.torch.load(files["model.safetensors"])) == {torch.bfloat16}
    assert b"# toy-vit.test" in files["README.md"]


def test_a_saved_folder_has_the_record_and_precision_that_are_named(model, record, tmp_path):
    folder = hub.save_pretrained(model, tmp_path / "half", record=record, dtype=torch.float16)
    assert matrices(safetensors.torch.load_file(folder / "model.safetensors")) == {torch.float16}
    assert "# toy-vit.test" in (folder / "README.md").read_text()


def test_a_repository_is_kept_in_the_cache_that_is_named(server, pushed, model, tmp_path):
    options = {"device": "cpu", "dtype": "float32", "cache_dir": tmp_path / "mine"}
    assert same(model, hub.from_pretrained(REPO, **options))
    assert list((tmp_path / "mine").iterdir()) and not (tmp_path / "cache").exists()
    assert same(model, hub.from_pretrained(REPO, local_files_only=True, **options))


def test_a_push_without_the_right_to_write_is_one_clear_error(server, model):
    with pytest.raises(WeightsError, match="hf auth login"):
        hub.push_to_hub(model, REPO)
    with pytest.raises(UsageError, match="owner/name"):
        hub.push_to_hub(model, "not a name", token="hf_test")


# the environment, which the client reads when it is imported


SCRIPT = "from partzoo.weights.folder import fetch_repo; import sys; print(fetch_repo(sys.argv[1]))"


def test_endpoint_home_and_offline_mode_are_those_of_the_environment(model, tmp_path):
    folder = hub.save_pretrained(model, tmp_path / "saved")
    with serve() as server:
        server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
        place = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(CLONE)}

        def run(**more):
            command = [sys.executable, "-c", SCRIPT, REPO]
            done = subprocess.run(
                command,
                env=os.environ | place | more,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                check=True,
            )
            return done.stdout

        first = run()
        fetched = len(server.requests)
        assert fetched >= 2
        assert run(HF_HUB_OFFLINE="1") == first
        assert len(server.requests) == fetched
    assert (tmp_path / "home" / "hub" / "models--tester--toy").is_dir()


def test_config_names_are_json(model, tmp_path):
    content = json.loads((hub.save_pretrained(model, tmp_path) / "config.json").read_text())
    assert content["architecture"] == "toy-vit" and content["config"]["dim"] == model.config.dim


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"theirs"},
        {"model.safetensors": b"\x02\0\0\0\0\0\0\0{}"},
        {"config.json": b"{"},
    ],
)
def test_another_librarys_model_is_not_replaced(model, tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="holds a model that is not one of partzoo: choose another folder"):
        hub.save_pretrained(model, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_notes_in_a_card_are_kept_when_a_model_is_saved_again(model, tmp_path):
    card = hub.save_pretrained(model, tmp_path) / "README.md"
    first = card.read_text()
    front, _, body = first.partition("<!-- Written")
    card.write_text(
        f"{front}Trained on herons.\n\n<!-- Written{body.replace('toy-vit', 'edited')}\n## Notes\n\nHerons.\n"
    )
    again = (hub.save_pretrained(model, tmp_path) / "README.md").read_text()
    assert "Trained on herons." in again and again.endswith("## Notes\n\nHerons.\n")
    assert "edited" not in again and again.count("toy-vit") == first.count("toy-vit")


@pytest.mark.parametrize(
    "notes", ["Reiher, größer".encode("latin-1"), "Reiher, größer".encode("utf-16"), b"# Herons\n\nGrey."]
)
def test_a_card_in_any_encoding_or_without_a_block_is_kept(model, tmp_path, notes):
    (tmp_path / "README.md").write_bytes(notes)
    once = (hub.save_pretrained(model, tmp_path) / "README.md").read_bytes()
    kept = notes.decode("utf-16").encode() if notes.startswith((b"\xff\xfe", b"\xfe\xff")) else notes
    assert once.endswith(b"-->\n\n" + kept + b"\n") and b"# toy-vit" in once
    assert (hub.save_pretrained(model, tmp_path) / "README.md").read_bytes() == once


def test_notes_in_a_repository_s_card_are_kept_when_a_model_is_pushed_again(server, model, tmp_path):
    hub.push_to_hub(model, REPO, token="hf_token")
    _, files = server.find(REPO, "main")
    server.commit(REPO, {"README.md": files["README.md"] + b"\n## Notes\n\nHerons.\n"})
    hub.push_to_hub(model, REPO, token="hf_token")
    _, files = server.find(REPO, "main")
    assert files["README.md"].endswith(b"## Notes\n\nHerons.\n")
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert not (tmp_path / "cache").exists()


def test_a_push_to_a_branch_that_does_not_exist_names_it(server, model, monkeypatch):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def missing(*_, **__):
        raise RevisionNotFoundError.__new__(RevisionNotFoundError)

    monkeypatch.setattr(HfApi, "upload_folder", missing)
    with pytest.raises(UsageError, match="no branch 'next'"):
        hub.push_to_hub(model, REPO, token="hf_token", revision="next")


def test_a_push_to_a_branch_keeps_the_notes_of_that_branch(server, model):
    main = hub.push_to_hub(model, REPO, token="hf_token")
    card = server.find(REPO, main)[1]["README.md"]
    server.commit(REPO, {"README.md": card + b"\n## Notes\n\nHerons.\n"}, "next")
    hub.push_to_hub(model, REPO, token="hf_token", revision="next")
    assert server.find(REPO, "next")[1]["README.md"].endswith(b"Herons.\n")
    assert server.find(REPO, "main")[1]["README.md"] == card
    server.commit(REPO, {"model.safetensors": b""}, "bare")
    hub.push_to_hub(model, REPO, token="hf_token", revision="bare")
    assert server.find(REPO, "bare")[1]["README.md"] == card


def test_a_repository_may_be_named_as_load_names_it(server, pushed, model):
    assert same(model, hub.from_pretrained(f"hf-hub:{REPO}@{pushed}", device="cpu", dtype="float32"))


def test_makers_load_trained_weights_unless_random_ones_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "load", lambda name, **options: asked.append((name, options)))
    makers = hub.makers()
    assert set(makers) == {name.replace("-", "_").replace(".", "_") for name in [*partzoo.list_models(), *aliases()]}
    make = makers["part_vitt8"]
    make()
    make(pretrained=False, dim=24)
    assert asked == [("part-vitt8", {"pretrained": True}), ("part-vitt8", {"pretrained": False, "dim": 24})]
    assert make.__doc__.splitlines()[0] == find("part-vitt8").summary
