"""Serve the parts of uploaded images, each read in a process with limits on time and memory.

Start it with ``python examples/upload_server.py --port 8000``; then ``curl --data-binary @photo.jpg localhost:8000``
answers with JSON. Without ``--port`` it sends itself one image and ends.
"""

import argparse
import json
import multiprocessing
import os
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

UPLOAD_BYTES = 10 * 2**20
SECONDS = 30  # for one image, once the worker is ready
START_SECONDS = 300
MEMORY_BYTES = 8 * 2**30  # of addresses; torch reserves more of them than it uses memory
SWITCHES = {
    "PARTZOO_URL_SCHEMES": "none",
    "PARTZOO_FORMATS": "jpeg,png,webp",
    "PARTZOO_MAX_PIXELS": "25000000",
    "PARTZOO_MAX_BYTES": str(UPLOAD_BYTES),
    "HF_HUB_OFFLINE": "1",
}


def work(pipe):
    """Find the parts of the images that arrive, until the process is ended."""
    os.environ |= SWITCHES  # before partzoo is imported
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except ImportError:
        print("This system sets no limit on memory: run the server in a container that does.")
    import torch

    import partzoo
    from partzoo.features import DEFAULT_MODEL

    torch.set_num_threads(1)
    model = partzoo.load(DEFAULT_MODEL)
    pipe.send(None)  # ready
    while True:
        data = pipe.recv()
        try:
            parts = partzoo.discover_parts(bytes(data), k=6, model=model)  # bytes are never a path or an address
            answer = 200, {"size": parts.size, "boxes": [parts.boxes[i - 1].tolist() for i in parts.present]}
        except partzoo.PartzooError as error:
            answer = 400, {"error": str(error)}
        pipe.send(answer)


class Worker:
    """A process for one image at a time, which is replaced if it takes too long or ends."""

    def __init__(self):
        self.lock = threading.Lock()
        self.start()

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other,), daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(START_SECONDS):
            raise RuntimeError("The worker does not start.")
        self.pipe.recv()

    def answer(self, data):
        with self.lock:
            try:
                self.pipe.send(data)
                if self.pipe.poll(SECONDS):
                    return self.pipe.recv()
                problem = f"The image takes over {SECONDS} s."
            except (EOFError, OSError):  # the system has ended it, for example for its memory
                problem = "The image needs more than is allowed."
            self.process.kill()
            self.process.join()
            self.start()
            return 503, {"error": problem}


class Handler(BaseHTTPRequestHandler):
    timeout = 20  # for each wait for the client

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or not 0 < int(length[:12]) <= UPLOAD_BYTES:
            self.reply(413, {"error": f"Send an image of at most {UPLOAD_BYTES:,} bytes."})
        else:
            self.reply(*self.server.worker.answer(self.rfile.read(int(length))))

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(port):
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.worker = Worker()
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    with serve(port or 0) as server:
        if port:
            server.serve_forever()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cat = (Path(__file__).parent / "images" / "cat.jpg").read_bytes()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}", cat) as response:
            print(response.read().decode())
        server.shutdown()
        server.worker.process.kill()
