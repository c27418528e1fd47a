#!/usr/bin/python3
"""An RTSP camera: serves one clip, over and over, at rtsp://127.0.0.1:PORT/cam.

    rtsp_server.py --port 8554 --clip street.mkv --codec h264|h265|mjpeg
                   [--auth basic|digest --user U --password P]

The clip holds one video track of that codec in Matroska; nothing is encoded here. ffmpeg reads it at its own
speed and joins its end to its beginning with rising timestamps; gst-rtsp-server does the rest, so a client
meets a real server. As with a real camera, all clients see the same running stream, and one that joins late
waits for the next key frame. Ends with its parent. Prints "serving URL" when it listens.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PR_SET_PDEATHSIG = 1
ROLE = "viewer"

# Matroska's track to RTP. config-interval -1 sends the parameter sets with every key frame.
PAYLOADERS = {
    "h264": "h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "h265": "h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1",
    "mjpeg": "jpegparse ! rtpjpegpay name=pay0 pt=26",
}


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class LoopedClip(GstRtspServer.RTSPMediaFactory):
    """Builds the pipeline for the first client; the reader ends with the last one."""

    def __init__(self, clip, codec):
        super().__init__()
        self.clip, self.codec = clip, codec
        self.set_shared(True)
        # A camera does not care whether somebody closes in order.
        self.set_eos_shutdown(False)

    def do_create_element(self, _url):
        reader = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", self.clip]
            + ["-map", "0:v:0", "-c", "copy", "-f", "matroska", "-live", "1", "-flush_packets", "1", "pipe:1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        # The pipeline gets a descriptor of its own; when it closes it, the reader ends at its next write.
        fd = os.dup(reader.stdout.fileno())
        reader.stdout.close()
        element = Gst.parse_launch(f"fdsrc fd={fd} ! matroskademux ! queue ! {PAYLOADERS[self.codec]}")
        element.reader, element.fd = reader, fd
        self.latest = (reader, fd)
        return element

    def do_configure(self, media):
        GstRtspServer.RTSPMediaFactory.do_configure(self, media)
        media.connect("unprepared", self.end_reader, *self.latest)

    @staticmethod
    def end_reader(_media, reader, fd):
        reader.kill()
        reader.wait()
        os.close(fd)


def require_login(server, factory, method, user, password):
    """Only this user may see the stream; the server offers `method` and no other."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    allowed = GstRtspServer.RTSPPermissions()
    allowed.add_role(ROLE)
    for permission in ("media.factory.access", "media.factory.construct"):
        allowed.add_permission_for_role(ROLE, permission, True)
    factory.set_permissions(allowed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--codec", choices=sorted(PAYLOADERS), required=True)
    parser.add_argument("--auth", choices=["basic", "digest"])
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    args = parser.parse_args()
    if not os.path.isfile(args.clip):
        sys.exit(f"no such clip: {args.clip}")

    die_with_parent()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(args.port))
    factory = LoopedClip(args.clip, args.codec)
    if args.auth:
        require_login(server, factory, args.auth, args.user, args.password)
    server.get_mount_points().add_factory("/cam", factory)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on port {args.port}")
    print(f"serving rtsp://127.0.0.1:{args.port}/cam", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
