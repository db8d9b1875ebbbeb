"""The demo of partzoo as a Hugging Face Space."""

from partzoo.demo.page import served

NOTE = "Images are processed on this server, and deleted after ten minutes."

if __name__ == "__main__":
    with served("0.0.0.0", 7860, note=NOTE) as blocks:
        blocks.block_thread()
