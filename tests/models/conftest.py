"""A local hub for tests of models that come from repositories or go there, and families that an older timm lacks."""

import huggingface_hub.constants as constants
import pytest
import timm
from helpers.hub_server import serve
from packaging.version import Version

# Networks that only timm 1.0.31 has, or that give layers or the right grid only there.
NEW_FAMILIES = {"test_coatnet", "test_maxvit", "test_vit_relpos", "convit_tiny", "inception_v3", "pit_ti_224"}


@pytest.fixture(autouse=True)
def families_of_the_installed_timm(request):
    given = getattr(request.node, "callspec", None)
    names = {str(value).removeprefix("timm/") for value in given.params.values()} if given else set()
    if names & NEW_FAMILIES and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip("needs timm 1.0.31")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Run a local hub, and point the real client in this process to it and to an empty cache."""
    with serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # since huggingface_hub 0.34
        yield running
