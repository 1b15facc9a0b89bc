"""grpcio's client, through the sidecar over a Unix socket, to grpcio's server: HTTP/2 without TLS on both sides.

usage: sidecar.py SIDECAR, with `server.py` beside this file. Prints a line for each promise.
"""

import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import grpc

here = pathlib.Path(__file__).parent


class TokenEndpoint(http.server.BaseHTTPRequestHandler):
    """Issues t1, t2 and so on."""

    issued = 0

    def do_POST(self):
        TokenEndpoint.issued += 1
        number = TokenEndpoint.issued
        tokens = {"access_token": f"t{number}", "token_type": "Bearer", "expires_in": 3600, "refresh_token": f"r{number}"}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(tokens).encode())

    def log_message(self, *_):
        pass


def promise(text, kept):
    print(f"{'PASS' if kept else 'FAIL'} {text}", flush=True)


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def main(program, folder, server):
    api = json.loads(server.stdout.readline())["port"]
    endpoint = http.server.HTTPServer(("127.0.0.1", 0), TokenEndpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    (folder / "refresh-token").write_text("r0")
    config = {
        "token_endpoint": f"http://127.0.0.1:{endpoint.server_port}/token",
        "client_auth": {"method": "public", "client_id": "id"},
        "refresh_token": {"file": str(folder / "refresh-token")},
        "api": f"http://127.0.0.1:{api}/",
        "http2": "prior_knowledge",
    }
    (folder / "config.json").write_text(json.dumps(config))
    socket = folder / "socket"
    sidecar = subprocess.Popen([program, "--config", folder / "config.json", "--listen", f"unix:{socket}"])
    try:
        while not socket.exists() and sidecar.poll() is None:
            time.sleep(0.01)
        call(socket, server)
    finally:
        sidecar.terminate()
        sidecar.wait()


def call(socket, server):
    channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
    refusable = {"metadata": (("refuse", "interceptor"),), "timeout": 30, "wait_for_ready": True}
    unary = channel.unary_unary("/raw.Api/Unary")
    join = channel.stream_unary("/raw.Api/Join")
    repeat = channel.unary_stream("/raw.Api/Repeat")
    echo = channel.stream_stream("/raw.Api/Echo")
    promise("a unary call passes the sidecar", unary(b"one", **refusable) == b"one")
    promise("a client-streaming call passes it", join(iter([b"a", b"b"]), **refusable) == b"ab")
    promise("a server-streaming call passes it", list(repeat(b"a", **refusable)) == [b"a"] * 3)
    promise("a bidirectional call passes it", list(echo(iter([b"a", b"b"]), **refusable)) == [b"a", b"b"])
    server.stdin.write("2\n")
    server.stdin.flush()
    server.stdout.readline()
    promise("a call that is refused is sent again", unary(b"again", **refusable) == b"again")
    promise("and cost one refresh", TokenEndpoint.issued == 2)
    by_path = grpc.insecure_channel(f"unix:{socket}").unary_unary("/raw.Api/Unary")
    refused = code(lambda: by_path(b"", **refusable))
    promise("without `grpc.default_authority` there is an error", refused == grpc.StatusCode.INTERNAL)


with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, here / "server.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        main(sys.argv[1], pathlib.Path(folder), server)
        server.stdin.close()
