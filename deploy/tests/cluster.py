"""A kube-apiserver with its etcd, and nothing else: no controllers, no nodes. What controllers would do, tests do.

The programs are in no package registry. They are looked for in the folder that KUBEBUILDER_ASSETS names, else in
/usr/local/kubebuilder/bin, as in the tests of admission/.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from support import free_port

ADMIN = "admin-token"
# Long enough for a busy machine.
PATIENCE_S = 120


def assets():
    """The folder of both programs, or None."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS"), "/usr/local/kubebuilder/bin"]
    return next((Path(f) for f in folders if f and all((Path(f) / p).is_file() for p in ("kube-apiserver", "etcd"))), None)


def own_address():
    """An address of this machine that is not the loopback, since endpoints may not be on that; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: this asks the routing table.
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def wait(what, ready, process=None):
    """Waits until `ready()` is true or gives a value."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{what}: the process ended: {process.log.read_text()[-2000:]}")
        if result := ready():
            return result
        time.sleep(0.2)
    log = f": {process.log.read_text()[-2000:]}" if process is not None else ""
    raise AssertionError(f"waited {PATIENCE_S} s for {what}{log}")


class Cluster:
    """Processes end with `close`."""

    def __init__(self, folder):
        self.folder = Path(tempfile.mkdtemp(prefix="nodens-chart-"))
        self.processes = []
        self.context = ssl._create_unverified_context()
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f"{ADMIN},admin,1,system:masters\n")
        etcd = f"http://127.0.0.1:{free_port()}"
        self.start("etcd", folder / "etcd", "--data-dir", self.folder / "etcd", "--unsafe-no-fsync", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                   "--listen-peer-urls", f"http://127.0.0.1:{free_port()}")
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        apiserver = self.start(
            "kube-apiserver", folder / "kube-apiserver", "--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", self.folder / "certs",
            "--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", public,
            "--service-account-signing-key-file", key, "--authorization-mode", "RBAC", "--token-auth-file", tokens, "--disable-admission-plugins", "ServiceAccount",
            # Webhooks are called at the addresses of EndpointSlices, as if this API server had kube-proxy's view.
            "--enable-aggregator-routing=true")
        wait("kube-apiserver", lambda: self.call("GET", "/readyz")[0] == 200, apiserver)
        wait("kube-system", lambda: self.get("/api/v1/namespaces/kube-system"))

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name, *command):
        log = self.folder / f"{name}-{len(self.processes)}.log"
        with open(log, "w") as file:
            process = subprocess.Popen([str(part) for part in command], stdout=file, stderr=subprocess.STDOUT)
        process.log = log
        self.processes.append(process)
        return process

    def call(self, method, path, body=None, content="application/json"):
        """Status and JSON or text."""
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": content})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def get(self, path):
        status, body = self.call("GET", path)
        return body if status == 200 else None

    def create(self, path, body):
        status, answer = self.call("POST", path, body)
        assert status in (200, 201), answer
        return answer

    def kubeconfig(self, account, namespace="kube-system"):
        """As a service account: what its roles allow and no more."""
        answer = self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
                             {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}})
        path = self.folder / f"{account}.kubeconfig"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": answer["status"]["token"]}}],
        }))
        return path
