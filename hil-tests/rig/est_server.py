"""An enrolment server (EST, RFC 7030) in front of the file-based authority of scripts/ca.sh, for tests.

It speaks TLS with Python's ssl, signs with openssl, and answers as the standard says: certs-only PKCS#7 in base64. A one-time password is
good for one certificate. `simplereenroll` wants a client certificate of this authority with the same name as the request.
"""
import argparse
import base64
import datetime
import http.server
import os
import ssl
import subprocess
import tempfile

flags = argparse.ArgumentParser()
flags.add_argument("--authority", required=True, help="folder of scripts/ca.sh")
flags.add_argument("--port", type=int, required=True)
flags.add_argument("--cert", required=True)
flags.add_argument("--key", required=True)
flags.add_argument("--user", required=True)
flags.add_argument("--password", required=True)
flags.add_argument("--first-since-days", type=int, default=0, help="the first certificate began so long ago")
flags.add_argument("--first-left-days", type=int, default=365)
args = flags.parse_args()
unused_passwords = {args.password}


def openssl(*words, data=None):
    return subprocess.run(["openssl", *words], input=data, check=True, capture_output=True).stdout


def name_of(request):
    text = openssl("req", "-inform", "DER", "-noout", "-verify", "-subject", "-nameopt", "multiline", data=request).decode()
    return next(line.split("= ", 1)[1].strip() for line in text.splitlines() if "commonName" in line)


def sign(request, name, since_days, left_days):
    now = datetime.datetime.now(datetime.timezone.utc)
    date = lambda days: (now + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")
    with tempfile.TemporaryDirectory() as place:
        pem, out = os.path.join(place, "r.pem"), os.path.join(place, "c.pem")
        openssl("req", "-inform", "DER", "-out", pem, data=request)
        os.environ["GENGFU_NAMES"] = "DNS:unused"
        openssl("ca", "-config", f"{args.authority}/openssl.cnf", "-batch", "-notext", "-in", pem, "-out", out,
                "-extensions", "gateway", "-startdate", date(-since_days), "-enddate", date(left_days), "-subj", f"/CN={name}")
        return bag(out)


def bag(*files):
    words = [word for file in files for word in ("-certfile", file)]
    return base64.encodebytes(openssl("crl2pkcs7", "-nocrl", *words, "-outform", "DER"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def certificates(self, body):
        kind = "application/pkcs7-mime; smime-type=certs-only"
        self.answer(200, body, Content_Type=kind, Content_Transfer_Encoding="base64")

    def do_GET(self):
        if self.path == "/.well-known/est/cacerts":
            self.certificates(bag(f"{args.authority}/ca.pem"))
        else:
            self.answer(404, b"not here")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Type") != "application/pkcs10":
            return self.answer(415, b"a certificate request (application/pkcs10) is wanted")
        request = base64.b64decode(body)
        name = name_of(request)
        if self.path == "/.well-known/est/simpleenroll":
            self.first(request, name)
        elif self.path == "/.well-known/est/simplereenroll":
            self.renewal(request, name)
        else:
            self.answer(404, b"not here")

    def first(self, request, name):
        scheme, _, words = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(words).decode().partition(":")
        if scheme != "Basic" or user != args.user or password not in unused_passwords:
            return self.answer(401, b"who are you?", WWW_Authenticate='Basic realm="est"')
        unused_passwords.discard(password)
        self.certificates(sign(request, name, args.first_since_days, args.first_left_days))

    def renewal(self, request, name):
        subject = dict(pair[0] for pair in (self.connection.getpeercert() or {}).get("subject", ()))
        if subject.get("commonName") != name:
            return self.answer(403, b"show the certificate that is to be renewed")
        self.certificates(sign(request, name, 0, 365))


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(args.cert, args.key)
context.verify_mode = ssl.CERT_OPTIONAL
context.load_verify_locations(f"{args.authority}/ca.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
