import dataclasses
import hashlib
import json

import pytest
import torch
import yaml
from helpers.command_line import partzoo as command
from helpers.weight_records import describe, record_of, toy

import partzoo
from partzoo import hub
from partzoo.errors import UnknownModelError, UsageError, WeightsError
from partzoo.models import sharing
from partzoo.weights.manifest import NAME, manifest
from partzoo.weights.store import locate, resolve
from partzoo.weights.tensors import write_weights

REPO = "tester/toy"
TOY = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def model():
    return toy()


@pytest.fixture(params=[1, 2], ids=["file", "shards"])
def record(request, model, tmp_path, monkeypatch):
    """A record of a toy's weights, of one file or of shards, in a folder of checkpoints."""
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    (tmp_path / "checkpoints").mkdir()
    total = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    limit = None if request.param == 1 else total // 2
    path = tmp_path / "checkpoints" / "toy-vit.test.safetensors"
    paths = write_weights(path, model.state_dict(), "toy-vit", model.config, max_bytes=limit)
    assert (len(paths) == 1) == (request.param == 1)
    return record_of(model, tuple(describe(each) for each in sorted(path.parent.iterdir())))


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_released_weights_in_a_folder_are_those_of_the_record_and_load(record, model, tmp_path):
    folder = hub.save_released(record, tmp_path / "copy")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert {file.sha256 for file in record.files} <= digests
    assert same(model, partzoo.load(f"local-dir:{folder}", **TOY))


def test_copies_of_weights_without_a_digest_are_compared_with_their_record(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTZOO_CACHE", str(tmp_path / "notes"))
    folder = hub.save_released("part-vitn8.tin", tmp_path / "copy")
    file = folder / "model.safetensors"
    ran = command("verify", folder)
    assert ran.code == 0 and "ok" in ran.out, ran.err
    assert partzoo.load(f"local-dir:{folder}", **TOY)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for name in (f"local-dir:{folder}", file):
        with pytest.raises(WeightsError, match=r"is damaged: the sha256 .* in config\.json"):
            partzoo.load(name, **TOY)
    assert command("verify", folder).code == 1
    assert partzoo.load(folder, verify=False, **TOY)


def test_another_library_s_model_is_not_replaced_by_released_weights(record, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UsageError, match="not one of partzoo: choose another folder"):
        hub.save_released(record, tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"model_type": "vit"}'


def test_a_folder_of_copies_serves_as_a_folder_of_checkpoints(record, tmp_path, monkeypatch):
    folder = hub.save_released(record, tmp_path / "bundle" / record.name)
    monkeypatch.setenv("PARTZOO_CHECKPOINTS", str(tmp_path / "bundle"))
    found = resolve(record)
    assert {path.parent for path in found} == {folder} and len(found) == len(record.files)
    assert [locate(record, file) for file in record.files] == found


def test_published_weights_keep_their_hash_and_load_from_the_repository(record, model, server, tmp_path, monkeypatch):
    planned = hub.planned(record, REPO)
    assert server.requests == []
    commit = hub.publish(record, REPO, token="hf_test")
    sent = server.find(REPO, commit)[1]
    assert {name: len(data) for name, data in sent.items()} == planned
    assert {file.sha256 for file in record.files} <= {hashlib.sha256(data).hexdigest() for data in sent.values()}
    assert server.messages[commit] == "Weights toy-vit.test from partzoo"
    assert same(model, hub.from_pretrained(f"{REPO}@{commit}", **TOY))

    monkeypatch.delenv("PARTZOO_CHECKPOINTS")
    recorded = dataclasses.replace(record, hub={"repo": REPO, "revision": commit})
    found = {path.name for path in resolve(recorded)}
    assert found == {name for name in sent if name.endswith((".safetensors", ".index.json"))}


def test_damaged_weights_are_not_published(record, server, tmp_path):
    path = tmp_path / "checkpoints" / record.files[0].path.partition("/")[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="bytes"):
        hub.publish(record, REPO, token="hf_test")
    assert server.requests == []


def test_wrong_names_are_clear_errors(record):
    with pytest.raises(UnknownModelError, match="nothing-like-it"):
        hub.publish("nothing-like-it", REPO)
    for call in (hub.publish, hub.planned):
        with pytest.raises(UsageError, match="owner/name"):
            call(record, "not a name")


def test_a_card_holds_the_scores_as_a_model_index(record):
    front = yaml.safe_load(sharing.card("toy-vit", toy().config, record, family="mpae").split("---")[1])
    assert front["pipeline_tag"] == "image-segmentation" and front["license"] == "apache-2.0"
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "toy-vit.test" and result["dataset"]["name"] == "none"
    assert result["metrics"] == [{"type": "top-1", "value": 0.125}]


def test_every_released_card_is_valid_front_matter():
    from partzoo.models.publishing import texts

    for record in manifest().values():
        front = yaml.safe_load(texts(record, "")["README.md"].split("---")[1])
        values = [metric["value"] for result in front["model-index"][0]["results"] for metric in result["metrics"]]
        assert values == [metric["value"] for metric in record.metrics]


def test_the_command_prints_what_would_be_sent(server):
    ran = command("publish", "part-vitn8.tin", "--repo", "me/part-vitn8", "--private", "--dry-run")
    assert ran.code == 0 and "me/part-vitn8 (private), branch main" in ran.out
    assert all(name in ran.out for name in ("model.safetensors", "config.json", "README.md"))
    assert "pipeline_tag:" in ran.out and '"architecture": "part-vitn8"' in ran.out
    assert server.requests == []


@pytest.mark.parametrize("repo", ["bare", "owner/name/more", "owner/na me"])
def test_a_name_that_is_not_one_of_a_repository_is_refused(server, repo):
    ran = command("publish", "part-vitn8.tin", "--repo", repo, "--dry-run")
    assert ran.code == 2 and "write owner/name" in ran.err
    with pytest.raises(UsageError, match="write owner/name"):
        hub.publish("part-vitn8.tin", repo, token="hf_test")
    assert server.requests == []


def test_folders_of_one_model_and_of_several_are_not_mixed(tmp_path):
    assert command("download", "part-vitn8.tin", "-o", tmp_path / "one").code == 0
    assert command("download", "part-vitn8.tin", "part-vitt8.tin", "-o", tmp_path / "several").code == 0
    ran = command("download", "part-vitn8.tin", "part-vitt8.tin", "-o", tmp_path / "one")
    assert ran.code == 2 and "holds a model itself" in ran.err
    ran = command("download", "part-vitn8.tin", "-o", tmp_path / "several")
    assert ran.code == 2 and "holds a folder for each of several models" in ran.err
    assert command("download", "part-vitn8.tin", "-o", tmp_path / "several" / "another").code == 0


def test_the_command_publishes_and_records(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    written = []
    monkeypatch.setattr("partzoo.weights.manifest.add_record", lambda record: written.append(record) or tmp_path / NAME)
    ran = command("publish", "part-vitn8.tin", "--repo", "me/part-vitn8", "--private", "--record")
    assert ran.code == 0, ran.err
    commit = server.branches["me/part-vitn8"]["main"]
    assert "me/part-vitn8" in server.private and f"hf-hub:me/part-vitn8@{commit}" in ran.out
    assert [record.hub for record in written] == [{"repo": "me/part-vitn8", "revision": commit}]


def test_download_makes_folders_that_load_by_themselves(server, tmp_path, model):
    folder = hub.save_pretrained(model, tmp_path / "saved")
    server.commit(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    ran = command("download", "part-vitn8.tin", f"hf-hub:{REPO}", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    assert same(model, partzoo.load(f"local-dir:{tmp_path / 'bundle' / 'tester-toy'}", **TOY))
    ran = command("download", "part-vitn8.tin", "-o", tmp_path / "one")
    assert ran.code == 0, ran.err
    for place in ("bundle/part-vitn8.tin", "one"):
        assert json.loads((tmp_path / place / "config.json").read_text())["architecture"] == "part-vitn8"
        assert same(partzoo.load("part-vitn8.tin", **TOY), partzoo.load(f"local-dir:{tmp_path / place}", **TOY))
