#!/usr/bin/python3
"""A camera that gives JPEGs over HTTP: /snap.jpg (one picture) and /stream (multipart/x-mixed-replace).

    http_camera.py --port 8081 --stills FOLDER [--auth basic|digest --user U --password P]

Each request shows the next file of the folder. Basic is RFC 7617, Digest RFC 7616 with MD5 and qop=auth, every nonce
checked. Ends with its parent. Prints "serving URL" when it listens.
"""

import argparse
import base64
import ctypes
import hashlib
import itertools
import pathlib
import re
import secrets
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REALM = "camera"
PICTURES_PER_SECOND = 8


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


class Camera(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if not self.is_known():
            self.send_response(401)
            self.send_header("WWW-Authenticate", self.challenge())
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.rstrip("?") == "/snap.jpg":
            jpeg = self.server.next_picture()
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(jpeg)))
            self.end_headers()
            self.wfile.write(jpeg)
        elif self.path.rstrip("?") == "/stream":
            self.stream()
        else:
            self.send_error(404)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.send_header("Connection", "close")
        self.end_headers()
        pause = threading.Event()
        try:
            while not pause.wait(1 / PICTURES_PER_SECOND):
                jpeg = self.server.next_picture()
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except OSError:
            self.close_connection = True

    def challenge(self):
        if self.server.auth == "basic":
            return f'Basic realm="{REALM}"'
        nonce = secrets.token_hex(16)
        self.server.nonces.add(nonce)
        return f'Digest realm="{REALM}", nonce="{nonce}", qop="auth", algorithm=MD5'

    def is_known(self):
        server, given = self.server, self.headers.get("Authorization", "")
        if server.auth is None:
            return True
        if server.auth == "basic":
            return given == "Basic " + base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
        if not given.startswith("Digest "):
            return False
        said = {k: a or b for k, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', given)}
        if said.get("nonce") not in server.nonces or said.get("uri") != self.path:
            return False
        secret = md5(f"{server.user}:{REALM}:{server.password}")
        middle = f"{said['nonce']}:{said.get('nc')}:{said.get('cnonce')}:auth"
        return said.get("response") == md5(f"{secret}:{middle}:{md5('GET:' + self.path)}")

    def log_message(self, *_args):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stills", required=True)
    parser.add_argument("--auth", choices=["basic", "digest"])
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    args = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(pathlib.Path(args.stills).glob("*.jpg"))]
    if not pictures:
        sys.exit(f"no pictures in {args.stills}")
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Camera)
    turn, lock = itertools.cycle(pictures), threading.Lock()

    def next_picture():
        with lock:
            return next(turn)

    server.next_picture, server.nonces = next_picture, set()
    server.auth, server.user, server.password = args.auth, args.user, args.password
    print(f"serving http://127.0.0.1:{args.port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
