"""llama.cpp's server with a real model, started the way docs/real-model.md tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.real_model.recipe import block


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address. Its first line on stdout is its word that the model is loaded."""
    folder = tmp_path_factory.mktemp("llama")
    script = folder / "serve_model.py"
    script.write_text(block("file", "serve_model.py"))
    with (folder / "server.log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address.startswith("http://127.0.0.1:"):
                server.wait()
                log.seek(0)
                pytest.fail(f"the server did not start: {log.read()[-2000:]}")
            yield address
        finally:
            server.kill()
            server.communicate()
