"""What the tests of the installer take for a Kubernetes API: one node and one DaemonSet, over TLS.

`api.py FOLDER`: serves with FOLDER's `server.pem` and `server.key` on a port that it writes to FOLDER/port, and keeps what it was asked in
FOLDER/requests. It stands in for a cluster, which a test has not: no answer of it is evidence of how Kubernetes behaves.
"""

import http.server
import json
import pathlib
import ssl
import sys

folder = pathlib.Path(sys.argv[1])
daemonset = {
    "metadata": {"generation": 1},
    "spec": {"template": {"spec": {"containers": [{"name": "installer", "image": "i", "args": ["install", "--node=$(NODE_NAME)"]}]}}},
    "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2},
}
SET = "/apis/apps/v1/namespaces/attestation/daemonsets/installer"


def merged(old, patch):
    for key, value in patch.items():
        old[key] = merged(old.get(key, {}), value) if isinstance(value, dict) else value
    return old


class Api(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        if self.path != SET:
            return self.answer(404, {"reason": "NotFound"})
        status = daemonset["status"]
        # Its controller looks at the new generation, then pods become ready one after the other.
        if status["observedGeneration"] < daemonset["metadata"]["generation"]:
            status.update(observedGeneration=daemonset["metadata"]["generation"], updatedNumberScheduled=0, numberReady=0)
        elif status["updatedNumberScheduled"] < 2:
            status.update(updatedNumberScheduled=status["updatedNumberScheduled"] + 1)
        elif status["numberReady"] < 2:
            status.update(numberReady=status["numberReady"] + 1)
        with open(folder / "requests", "a") as kept:
            kept.write(json.dumps({"get": self.path, "ready": status["numberReady"]}) + "\n")
        self.answer(200, daemonset)

    def do_PATCH(self):
        patch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = {"patch": self.path, "type": self.headers["content-type"], "body": patch, "by": self.headers["authorization"]}
        with open(folder / "requests", "a") as kept:
            kept.write(json.dumps(asked) + "\n")
        if self.headers["authorization"] != "Bearer the-token":
            return self.answer(401, {"reason": "Unauthorized"})
        if self.path == SET:
            merged(daemonset, patch)
            daemonset["metadata"]["generation"] += 1
        self.answer(200, daemonset if self.path == SET else {})

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder / "server.pem", folder / "server.key")
server.socket = tls.wrap_socket(server.socket, server_side=True)
(folder / "port.new").write_text(str(server.server_address[1]))
(folder / "port.new").rename(folder / "port")
server.serve_forever()
