"""The folder of the Hugging Face Space."""

import ast
from pathlib import Path

import yaml

SPACE = Path(__file__).parents[2] / "space"


def test_the_card_and_the_files_belong_together():
    card = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio" and card["license"] == "apache-2.0"
    assert (SPACE / card["app_file"]).is_file()
    assert "partzoo[demo]" in (SPACE / "requirements.txt").read_text().split()


def test_the_app_uses_what_the_package_has():
    from partzoo.demo import page

    tree = ast.parse((SPACE / "app.py").read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert names and all(hasattr(page, name) for name in names)
