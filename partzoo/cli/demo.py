"""The command ``partzoo demo``."""

from __future__ import annotations

import click

from partzoo.cli.command import Command


@click.command(
    cls=Command,
    short_help="Try partzoo in a browser.",
    epilog="""
    \b
    Examples:
      partzoo demo
      partzoo demo --port 8000 --no-browser
    \b
    It needs pip install "partzoo[demo]". The page is for this machine alone: it has no
    password, so do not let it listen on an address that others reach.
    """,
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: a free one from 7860 on]")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Whether to open the page in a browser.")
def demo(host: str, port: int | None, browser: bool) -> None:
    """Serve a page on which you can upload an image, see its parts and download them."""
    from partzoo.demo.page import served

    with served(host, port, open_browser=browser) as blocks:
        click.echo(f"Open {blocks.local_url} in a browser; Ctrl-C ends the demo.")
        blocks.block_thread()
