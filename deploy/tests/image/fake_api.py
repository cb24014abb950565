"""fake_api.py CERTIFICATE KEY PORT CLUSTERIP: as much of an API server as the admission server asks for: lists, with the
Service kube-dns and a namespace that asks for injection, and watches that stay silent."""

import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SILENCE_S = 120


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        watch = "watch=true" in self.path
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system", "resourceVersion": "1"},
                   "spec": {"clusterIP": sys.argv[4], "clusterIPs": [sys.argv[4]]}}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"node-local-dns-injection": "enabled"}, "resourceVersion": "1"}}
        kind, items = ("Service", [service]) if path.endswith("/services") else ("Namespace", [namespace]) if path.endswith("/namespaces") else ("", [])
        body = {"apiVersion": "v1", "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}, "items": items}
        text = b"" if watch else json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header(*(("Transfer-Encoding", "chunked") if watch else ("Content-Length", str(len(text)))))
        self.end_headers()
        self.wfile.write(text)
        if watch:
            self.wfile.flush()
            time.sleep(SILENCE_S)
            self.close_connection = True

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Handler)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", flush=True)
server.serve_forever()
