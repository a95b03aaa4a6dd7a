"""Show a store in the browser: ``python view_store.py chest.zarr``. Needs ``pip install neuroglancer``.

Nothing leaves this machine: store and viewer are served on 127.0.0.1 alone.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import neuroglancer

import lazyvol as lv


class Files(SimpleHTTPRequestHandler):
    """Files and parts of files, for pages from elsewhere: what a sharded store needs of a server."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Access-Control-Expose-Headers", "Content-Range")
        super().end_headers()

    def do_OPTIONS(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        path = self.translate_path(self.path)
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked or not os.path.isfile(path):
            return super().do_GET()
        first, last = asked.groups()
        size = os.path.getsize(path)
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with open(path, "rb") as file:
            file.seek(start)
            self.wfile.write(file.read(stop - start))
        return None

    def log_message(self, *_: object) -> None:
        pass


def show(store: str) -> neuroglancer.Viewer:
    """Return a viewer of a store, in the middle of the volume and in its first window."""
    volume = lv.open_zarr(store)
    names = lv.windows_of(volume)
    centre, width = next(iter(names.values())) if names else (float(volume[len(volume) // 2].mean()), 400.0)
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=store))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    neuroglancer.set_server_bind_address("127.0.0.1")
    viewer = neuroglancer.Viewer()
    with viewer.txn() as state:
        state.dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="mm", scales=[1, 1, 1])
        state.layers["volume"] = neuroglancer.ImageLayer(
            source=f"http://127.0.0.1:{files.server_port}/|zarr3:",
            shader="#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }",
            shader_controls={"normalized": {"range": [centre - width / 2, centre + width / 2]}},
        )
        state.position = [float(volume[d].mean()) for d in "xyz"]
        state.cross_section_scale = max(lv.field_of_view(volume)) / 450  # mm for each pixel of the screen
        state.projection_scale = 2 * max(lv.field_of_view(volume))
    return viewer


if __name__ == "__main__":
    print(show(sys.argv[1]))
    input("Open that address in a browser; Enter ends. ")
