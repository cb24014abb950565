"""From the image to an answer: the chart's containers, and the original chart's, run by crun on a node of network namespaces.

The Corefile is the rendered ConfigMap's, flags and privileges are the rendered DaemonSet's, the Pod's resolv.conf is what the image's admission
server injects, and the C library's own resolver asks.
"""

import base64
import json
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from node_and_pod import KUBE_DNS, NODE_LOCAL, RECORDS, UPSTREAM, Cluster
from containers import PATIENCE_S, Container, built, bundle, check_runtime, needs, seccomp_profile
from rendered import POD, agent_bundle, injected_resolv_conf

WEB = "web.default.svc.cluster.local"
# A Pod that waits for a nameserver which is silent waits this long: `timeout:1`.
TIMEOUT_S = 1
TRIES = 5
ORIGINAL_COREFILE = f"""
.:53 {{
    errors
    cache {{
      success 9984 30
      denial 9984 5
    }}

    reload
    loop
    bind {NODE_LOCAL}
    forward . {UPSTREAM} {{
      force_tcp
    }}
    prometheus :9253
    health {NODE_LOCAL}:8081
}}
"""
ORIGINAL_AGENT = {
    "args": ["-localip", NODE_LOCAL, "-conf", "/etc/coredns/Corefile", "-upstreamsvc", "node-local-upstream", "-setupiptables=true", "-skipteardown=true", "-forwardonexit=false"],
    "securityContext": {"privileged": True},
}
ORIGINAL_ADMISSION = {
    "command": ["/node-local-dns-admission-controller"],
    "args": ["--include-kube-dns", "--ndots=3", "--attempts=2", "--timeout=1", "--nameserver", NODE_LOCAL, "--cluster-domain", "cluster.local", "--logtostderr", "-v=4", "2>&1"],
}
# node-cache's published manifest, for kube-proxy in IPVS mode.
NODE_CACHE_AGENT = {
    "args": ["-localip", NODE_LOCAL, "-conf", "/etc/Corefile", "-upstreamsvc", "kube-dns-upstream", "-pidfile", "/tmp/node-cache.pid"],
    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
}
NODE_CACHE_COREFILE = f"""
cluster.local:53 {{
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    reload
    loop
    bind {NODE_LOCAL}
    forward . __PILLAR__CLUSTER__DNS__ {{
        force_tcp
    }}
    prometheus :9253
    health {NODE_LOCAL}:8080
}}
.:53 {{
    errors
    cache 30
    reload
    loop
    bind {NODE_LOCAL}
    forward . __PILLAR__UPSTREAM__SERVERS__
    prometheus :9253
}}
"""


class World(unittest.TestCase):
    """A node, a Pod, and the programs of the image on them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # The agent reads its files as another user.
        self.folder.chmod(0o755)

    def unpacked(self, *name):
        self.image = built(self, *name)
        self.rootfs = self.image.unpack(self.folder / "rootfs")
        check_runtime(self, self.folder, self.rootfs, self.image)
        needs(self, "nsd", "dig", "getent", "nft", "iptables-legacy")
        self.cluster = Cluster(self, self.folder)
        self.cluster.start_dns()

    def agent(self, name, values=None, *, io_uring=False, spec=None, corefile=None, corefile_name="Corefile", says="packet rules by"):
        """The DaemonSet's container once it serves and `says` this: the chart's, or another one."""
        folder = self.folder / name
        configuration = agent_bundle(folder, self.rootfs, self.image, self.cluster.path("node"), values, io_uring=io_uring, spec=spec, corefile=corefile, corefile_name=corefile_name)
        agent = Container(self, self.folder, name, configuration)
        agent.wait_for("[INFO] ready")
        agent.wait_for(says)
        return agent

    def resolve(self, resolv_conf, name="web.default", address=RECORDS[WEB]):
        """Seconds that the C library's resolver took in the Pod, the programs' start included."""
        begun = time.monotonic()
        done = self.cluster.in_pod(resolv_conf, "getent", "ahostsv4", name)
        took = time.monotonic() - begun
        self.assertIn(f"{address} ", done.stdout, f"{name}: {done.returncode} {done.stderr}")
        return took

    def ask(self, resolv_conf, *words):
        """dig's answer and who gave it."""
        done = self.cluster.in_pod(resolv_conf, "dig", "+time=10", "+tries=1", *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def get(self, path, port):
        return self.cluster.fetch("node", f"http://{NODE_LOCAL}:{port}{path}")


class EndToEnd(World):
    def test_a_pod_is_served_and_the_second_nameserver_answers_at_once_when_the_agent_is_killed(self):
        self.unpacked()
        agent = self.agent("agent")
        self.assertIn("seccomp", agent.wait_for("runtime tokio"))
        resolv_conf = injected_resolv_conf(self.rootfs)
        self.resolve(resolv_conf)
        self.resolve(resolv_conf, "www.example.com", RECORDS["www.example.com"])
        self.resolve(resolv_conf, "db.shop", RECORDS["db.shop.svc.cluster.local"])
        for transport in ("+notcp", "+tcp"):
            said = self.ask(resolv_conf, transport, WEB)
            self.assertIn(RECORDS[WEB], said)
            self.assertIn(f"SERVER: {NODE_LOCAL}#53", said)
        self.assertIn("NXDOMAIN", self.ask(resolv_conf, "nosuch.default.svc.cluster.local"))
        self.assertIn("coredns_cache_hits_total", self.get("/metrics", 9253))
        for path, port in (("/health", 8081), ("/ready", 8181)):
            self.assertIn("OK", self.get(path, port), path)
        self.assertEqual(self.cluster.on("node", "nft list tables").strip(), "table inet nodens")
        self.assertEqual(self.cluster.on("node", "cat /proc/sys/net/ipv4/icmp_ratemask").strip(), "6160")
        before = min(self.resolve(resolv_conf) for _ in range(TRIES))

        agent.signal(signal.SIGKILL)
        self.assertEqual(agent.process.wait(PATIENCE_S), 128 + signal.SIGKILL)
        after = [self.resolve(resolv_conf) for _ in range(TRIES)]
        print(f"measured: getent with the agent {before * 1000:.0f} ms, killed {min(after) * 1000:.0f} to {max(after) * 1000:.0f} ms (silence would cost {TIMEOUT_S * 1000})")
        self.assertLess(min(after), TIMEOUT_S * 0.9)
        self.assertIn(f"SERVER: {KUBE_DNS}#53", self.ask(resolv_conf, WEB))

        again = self.agent("again")
        self.assertIn(f"SERVER: {NODE_LOCAL}#53", self.ask(resolv_conf, WEB))
        self.assertEqual(again.end(), 0, again.text())
        self.resolve(resolv_conf)

    def test_under_our_seccomp_profile_it_is_io_uring(self):
        self.unpacked()
        values = {"nodelocaldns": {"seccomp_profile": {"type": "Localhost", "localhostProfile": "nodens.json"}}}
        agent = self.agent("agent", values, io_uring=True)
        self.assertIn("runtime uring", agent.text())
        resolv_conf = injected_resolv_conf(self.rootfs)
        self.resolve(resolv_conf)
        self.assertIn(f"SERVER: {NODE_LOCAL}#53", self.ask(resolv_conf, "+tcp", WEB))
        self.assertEqual(agent.end(), 0, agent.text())

    def test_the_original_charts_daemonset_runs_with_its_image_exchanged(self):
        self.unpacked()
        agent = self.agent("agent", spec=ORIGINAL_AGENT, corefile=ORIGINAL_COREFILE)
        resolv_conf = injected_resolv_conf(self.rootfs)
        self.resolve(resolv_conf)
        self.assertIn(f"SERVER: {NODE_LOCAL}#53", self.ask(resolv_conf, WEB))
        self.assertIn("OK", self.get("/health", 8081))
        self.assertIn("coredns_dns_requests_total", self.cluster.fetch("node", "http://127.0.0.1:9253/metrics"))
        self.assertEqual(agent.end(), 0, agent.text())

    def test_node_caches_daemonset_runs_with_its_image_exchanged(self):
        self.unpacked()
        agent = self.agent("agent", spec=NODE_CACHE_AGENT, corefile=NODE_CACHE_COREFILE, corefile_name="Corefile.base")
        resolv_conf = injected_resolv_conf(self.rootfs)
        self.resolve(resolv_conf)
        # Past the cluster's DNS, to the node's resolver.
        self.resolve(resolv_conf, "www.example.com", RECORDS["www.example.com"])
        self.assertIn(f"SERVER: {NODE_LOCAL}#53", self.ask(resolv_conf, WEB))
        self.assertIn("OK", self.get("/health", 8080))
        self.assertEqual(agent.end(), 0, agent.text())
        self.assertNotIn(NODE_LOCAL, self.cluster.on("node", "ip addr"))

    def test_the_image_with_iptables_writes_rules_by_iptables(self):
        self.unpacked("nodens-iptables")
        agent = self.agent("agent", {"nodelocaldns": {"packet_rules": "iptables"}})
        self.assertIn("iptables", agent.wait_for("packet rules by"))
        resolv_conf = injected_resolv_conf(self.rootfs)
        self.resolve(resolv_conf)
        self.assertIn(f"SERVER: {NODE_LOCAL}#53", self.ask(resolv_conf, WEB))
        rules = self.cluster.on("node", "iptables -t raw -S; iptables-legacy -t raw -S 2>/dev/null || true")
        self.assertEqual(rules.count("-j NOTRACK"), 8, rules)

    def test_without_iptables_in_the_image_it_says_what_to_do(self):
        self.unpacked()
        self.agent("agent", {"nodelocaldns": {"packet_rules": "iptables"}}, says="use an image that has it")
        self.resolve(injected_resolv_conf(self.rootfs))


class OriginalAdmission(unittest.TestCase):
    def certificate(self, name):
        """Self-signed, for 127.0.0.1 and a name: what the original chart's Secret holds."""
        certificate, key, config = (self.folder / f"{name}.{suffix}" for suffix in ("crt", "key", "cnf"))
        config.write_text(f"[req]\ndistinguished_name=subject\nx509_extensions=leaf\n[subject]\n[leaf]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{name},IP:127.0.0.1\n")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                        "-config", config, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        return certificate, key

    def test_the_original_charts_command_starts_it_and_the_api_server_may_have_a_name(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        image = built(self)
        rootfs = image.unpack(self.folder / "rootfs")
        check_runtime(self, self.folder, rootfs, image)
        needs(self, "openssl")
        cluster = Cluster(self, self.folder)

        # The API server, by a name that only the Pod's /etc/hosts knows.
        api = "api.cluster.test"
        api_certificate, api_key = self.certificate(api)
        account = self.folder / "account"
        account.mkdir()
        for name, text in {"token": "t", "namespace": "kube-system", "ca.crt": api_certificate.read_text()}.items():
            (account / name).write_text(text)
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {api}\n")
        command = [sys.executable, Path(__file__).with_name("fake_api.py"), api_certificate, api_key, "6443", KUBE_DNS]
        server = subprocess.Popen(["ip", "netns", "exec", cluster.names["node"], *map(str, command)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.assertEqual(server.stdout.readline(), "listening\n")

        certs = self.folder / "certs"
        certs.mkdir()
        certificate, key = self.certificate("webhook")
        (certs / "tls.crt").write_bytes(certificate.read_bytes())
        (certs / "tls.key").write_bytes(key.read_bytes())
        mounts = [(account, "/var/run/secrets/kubernetes.io/serviceaccount", True), (certs, "/var/run/node-local-dns-admission-controller", True), (hosts, "/etc/hosts", True)]
        environment = {"KUBERNETES_SERVICE_HOST": api, "KUBERNETES_SERVICE_PORT": "6443"}
        admission = Container(self, self.folder, "admission", bundle(rootfs, image, ORIGINAL_ADMISSION, seccomp=seccomp_profile(False), network=cluster.path("node"),
                                                                     mounts=mounts, environment=environment))
        admission.wait_for("listens on")
        self.assertEqual(cluster.fetch("node", "https://127.0.0.1:8443/healthz").strip(), "ok", admission.text())
        review = {"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "default", "operation": "CREATE",
            "object": POD}}
        (self.folder / "review.json").write_text(json.dumps(review))
        # Until it has seen namespaces and kube-dns it lets Pods pass as they are.
        admission.wait_for("namespaces are known")
        admission.wait_for("cluster DNS is")
        said = json.loads(cluster.fetch("node", "https://127.0.0.1:8443/inject", self.folder / "review.json"))
        self.assertIn("patch", said["response"], f"{said} {admission.text()}")
        patch = json.dumps(json.loads(base64.b64decode(said["response"]["patch"])))
        self.assertTrue(said["response"]["allowed"])
        for expected in (NODE_LOCAL, KUBE_DNS, "ndots"):
            self.assertIn(expected, patch)
        self.assertEqual(admission.end(), 0, admission.text())


if __name__ == "__main__":
    unittest.main()
