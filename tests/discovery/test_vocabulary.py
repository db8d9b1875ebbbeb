import json

import pytest
import torch

from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, WeightsError
from partzoo.weights.tensors import read_tensors, save_tensors


@pytest.fixture
def vocabulary():
    settings = Settings("toy-vit", 64, (-1,), (0.5, 0.25, 0.25), "boundary", False)
    return PartVocabulary(torch.eye(3, 5), settings)


def test_saved_and_loaded_is_the_same(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "herons.parts.safetensors")
    again = PartVocabulary.load(tmp_path / "herons.parts.safetensors")
    assert again.settings == vocabulary.settings
    assert torch.equal(again.centres, vocabulary.centres)
    assert again.k == 3 and list(tmp_path.iterdir()) == [tmp_path / "herons.parts.safetensors"]


def test_centres_that_do_not_lie_in_order_are_kept(vocabulary, tmp_path):
    centres = torch.arange(12.0).reshape(4, 3).T
    PartVocabulary(centres, vocabulary.settings).save(tmp_path / "v.safetensors")
    assert torch.equal(PartVocabulary.load(tmp_path / "v.safetensors").centres, centres)


def test_the_numbering_of_a_learned_model_is_kept(vocabulary, tmp_path):
    learned = PartVocabulary(torch.empty(0, 0), Settings("mpae", 64), (2, 1, 2))
    learned.save(tmp_path / "v.safetensors")
    again = PartVocabulary.load(tmp_path / "v.safetensors")
    assert again.numbering == (2, 1, 2) and again.k == 2


def test_missing_damaged_and_foreign_files_are_named(vocabulary, tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        PartVocabulary.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    vocabulary.save(broken)
    broken.write_bytes(broken.read_bytes()[:-5])
    with pytest.raises(WeightsError, match=r"not a complete safetensors file.*: save the vocabulary again"):
        PartVocabulary.load(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, broken)
    with pytest.raises(WeightsError, match="no part vocabulary"):
        PartVocabulary.load(broken)


def test_an_unwritable_place_is_an_error(vocabulary, tmp_path):
    with pytest.raises(UsageError, match="Cannot write"):
        vocabulary.save(tmp_path / "no" / "folder.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "partzoo-vocabulary-4"}, "newer version of partzoo: upgrade"),
        ({"format": "partzoo-vocabulary-1"}, "older version of partzoo: fit it again"),
        ({"format": "partzoo-vocabulary-x"}, "no part vocabulary"),
        ({"settings": {"smoothing": 0.2}}, r"does not know \(smoothing\).*newer version"),
    ],
)
def test_files_of_other_versions_are_named_as_such(vocabulary, tmp_path, change, message):
    path = tmp_path / "v.safetensors"
    vocabulary.save(path)
    tensors, metadata = read_tensors(path)
    if "settings" in change:
        change = {"settings": json.dumps(json.loads(metadata["settings"]) | change["settings"])}
    save_tensors(path, tensors, metadata | change)
    with pytest.raises(WeightsError, match=message):
        PartVocabulary.load(path)


def test_the_home_folder_may_be_written_as_a_tilde(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    vocabulary.save("~/v.safetensors")
    assert PartVocabulary.load("~/v.safetensors").k == 3
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]


def test_saving_removes_what_a_killed_process_has_left(vocabulary, tmp_path):
    left = tmp_path / ".partzoo-a.safetensors.x.part"
    left.mkdir()
    vocabulary.save(tmp_path / "b.safetensors")
    assert not left.exists()
