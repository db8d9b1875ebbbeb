"""A local hub for tests of models that come from repositories or go there."""

import huggingface_hub.constants as constants
import pytest
from helpers.hub_server import serve


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Run a local hub, and point the real client in this process to it and to an empty cache."""
    with serve() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield running
