import pytest
import torch

from partzoo.discovery.vocabulary import PartVocabulary, Settings
from partzoo.errors import UsageError, WeightsError


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


def test_the_numbering_of_a_learned_model_is_kept(vocabulary, tmp_path):
    learned = PartVocabulary(vocabulary.centres, Settings("mpae", 64), (2, 1, 2))
    learned.save(tmp_path / "v.safetensors")
    again = PartVocabulary.load(tmp_path / "v.safetensors")
    assert again.numbering == (2, 1, 2) and again.k == 2


def test_missing_damaged_and_foreign_files_are_named(vocabulary, tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        PartVocabulary.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    vocabulary.save(broken)
    broken.write_bytes(broken.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="damaged"):
        PartVocabulary.load(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, broken)
    with pytest.raises(WeightsError, match="no part vocabulary"):
        PartVocabulary.load(broken)


def test_an_unwritable_place_is_an_error(vocabulary, tmp_path):
    with pytest.raises(UsageError, match="Cannot write"):
        vocabulary.save(tmp_path / "no" / "folder.safetensors")
