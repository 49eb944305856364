"""A live completions server on loopback, for the tests of the API and of the page."""

import contextlib
import socket
import subprocess
import sys
import threading
import time

from gportuguese import generation
from gportuguese.config import asset_path
from gportuguese.serve import About, Engine, Limits, make_server


@contextlib.contextmanager
def serving(writer, token=None, hosts=("*",), about=None, **limits):
    """The address of a live server in a thread."""
    engine = Engine(writer, Limits(**limits))
    server = make_server(engine, about or About(name="nano"), token, hosts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
                assert thread.is_alive()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def slow_down(monkeypatch):
    """Gives each token 20 ms, so that there is time to see a text being written."""
    draw = generation.draw

    def slow_draw(*arguments):
        time.sleep(0.02)
        return draw(*arguments)

    monkeypatch.setattr(generation, "draw", slow_draw)


@contextlib.contextmanager
def serving_process():
    """A `gpt-pt serve` of the packaged model, and its address."""
    command = [sys.executable, "-m", "gportuguese", "serve", str(asset_path("english-nano"))]
    with subprocess.Popen(
        [*command, "--port", "0", "--device", "cpu"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said = iter(process.stderr)
            url = next(word for line in said for word in line.split() if word.startswith("http://"))
            yield process, url
        finally:
            process.kill()
