"""The demo's page and its server, made with gradio."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from partzoo.demo import work
from partzoo.errors import PartzooError, UsageError, require

UPLOAD_BYTES = 20_000_000
KEPT_SECONDS = 600  # how long uploads and results of a session are kept
FONTS = ["system-ui", "sans-serif"]  # none that would be fetched from elsewhere
NOTE = "Nothing leaves this machine."
PARTS = [str(number) for number in range(1, 9)]


@contextlib.contextmanager
def served(
    host: str = "127.0.0.1", port: int | None = None, *, open_browser: bool = False, note: str = NOTE
) -> Iterator[Any]:
    """Serve the demo as long as the block runs.

    Uploads and results lie in a temporary folder that is deleted at the end; nothing is sent anywhere.

    Args:
        host: address to listen on. Only this machine reaches the default.
        port: port to listen on; None takes a free one from 7860 on.
        open_browser: whether to open the page in a browser.
        note: sentence at the top of the page.

    Yields:
        The gradio ``Blocks``; ``local_url`` is the page's address, and ``block_thread()`` waits for an interruption.

    Raises:
        MissingExtraError: gradio is not installed.
        UsageError: the port is in use.
    """
    with tempfile.TemporaryDirectory(prefix="partzoo-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        gradio = require("gradio", "demo")
        blocks = page(Path(folder), note)
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                max_file_size=UPLOAD_BYTES,
                theme=gradio.themes.Default(font=FONTS, font_mono=["monospace"]),
                footer_links=[],
                ssr_mode=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise UsageError(f"The demo cannot listen on {host}, port {port}: {error}") from error
        try:
            yield blocks
        finally:
            blocks.close()


def page(folder: Path, note: str = NOTE) -> Any:
    """Return the page as gradio ``Blocks``, not yet served.

    Args:
        folder: folder for uploads and results.
        note: sentence at the top.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = require("gradio", "demo")

    def reported(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def checked(*values: Any) -> Any:
            try:
                return call(*values)
            except PartzooError as error:
                raise gradio.Error(str(error), print_exception=False) from error

        return checked

    @reported
    def one(drawing: Any, model: str, k: int, background: str) -> tuple[Any, ...]:
        place = Path(tempfile.mkdtemp(dir=folder))
        found = work.divide(drawing, model, int(k), background, place)
        return found.overlay, found.rows, found.remark, found.files

    @reported
    def two(first: Any, second: Any, k: int) -> tuple[Any, ...]:
        return tuple(work.divide_together(first, second, int(k)))

    @reported
    def exchanged(first: Any, second: Any, numbers: list[str]) -> Any:
        return work.exchange(first, second, numbers)

    with gradio.Blocks(title="partzoo", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        gradio.Markdown(f"# partzoo\nFind the parts of objects in photographs. {note}")
        with gradio.Tab("One image"):
            with gradio.Row():
                with gradio.Column():
                    drawing = gradio.ImageEditor(
                        label="Image; paint the object if you know where it is",
                        type="pil",
                        image_mode="RGBA",
                        sources=["upload", "webcam", "clipboard"],
                        brush=gradio.Brush(default_size=30, colors=["#ff0000"], color_mode="fixed"),
                        layers=False,
                        transforms=None,
                    )
                    model = gradio.Dropdown(list(work.MODELS), label="What it shows", value="any object")
                    k = gradio.Slider(0, 12, 0, step=1, label=f"Number of parts (0: {work.AUTO})")
                    background = gradio.Radio(list(work.BACKGROUNDS), label="Divide", value="find the object")
                    start = gradio.Button("Find parts", variant="primary")
                with gradio.Column():
                    overlay = gradio.Image(label="Parts", format="png", interactive=False)
                    remark = gradio.Markdown()
                    table = gradio.Dataframe(
                        headers=["part", "% of the image", "centre x", "centre y"], label="Parts", interactive=False
                    )
                    files = gradio.Files(label="Download: overlay, part numbers, arrays, COCO", interactive=False)
            start.click(
                one,
                [drawing, model, k, background],
                [overlay, table, remark, files],
                api_name="discover",
                concurrency_limit=1,
            )
        with gradio.Tab("Two images"):
            gradio.Markdown("The same number marks the same part in both images.")
            with gradio.Row():
                first, second = (gradio.Image(label=f"Image {i}", type="pil") for i in (1, 2))
            shared_k = gradio.Slider(2, 12, 6, step=1, label="Number of parts")
            start_two = gradio.Button("Find the same parts", variant="primary")
            with gradio.Row():
                drawn = [gradio.Image(label=f"Parts of image {i}", format="png", interactive=False) for i in (1, 2)]
            start_two.click(two, [first, second, shared_k], drawn, api_name="together", concurrency_limit=1)
        with gradio.Tab("Exchange parts of faces"):
            gradio.Markdown("Parts of face B are pasted into face A. Use cropped faces, turned the same way.")
            with gradio.Row():
                face, other = (gradio.Image(label=f"Face {name}", type="pil") for name in "AB")
            numbers = gradio.CheckboxGroup(PARTS, value=PARTS, label="Parts to take from face B")
            start_swap = gradio.Button("Exchange", variant="primary")
            mixed = gradio.Image(label="Result", format="png", interactive=False)
            start_swap.click(exchanged, [face, other, numbers], mixed, api_name="exchange", concurrency_limit=1)
    return blocks
