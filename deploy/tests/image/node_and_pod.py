"""A cluster of network namespaces: a node, a Pod behind it, and the cluster's DNS, which a server of Debian (NSD) plays.

    Pod 10.244.0.2 ── 10.244.0.1 node 10.10.0.1 ── 10.10.0.2 cluster: 10.96.0.10 kube-dns, 10.96.0.20 node-local-upstream

A ClusterIP is an address there, not a rule of kube-proxy. The Pod is processes with its network and its resolv.conf.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NODE_LOCAL, KUBE_DNS, UPSTREAM = "169.254.20.10", "10.96.0.10", "10.96.0.20"
RECORDS = {"web.default.svc.cluster.local": "10.96.1.1", "db.shop.svc.cluster.local": "10.96.1.2", "www.example.com": "192.0.2.80"}
PATIENCE_S = 60
# fetch URL [FILE TO POST]: what a web server says; whose its certificate is does not matter.
FETCH = """
import ssl, sys, urllib.request
data = open(sys.argv[2], "rb").read() if len(sys.argv) > 2 else None
request = urllib.request.Request(sys.argv[1], data, {"Content-Type": "application/json"})
print(urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())).open(request, timeout=30).read().decode())
"""
SOA = "@ 30 IN SOA ns hostmaster 1 7200 1800 86400 5\n@ 30 IN NS ns\nns 30 IN A 192.0.2.53\n"
# In the folder that `write_dns` has written.
DNS_SERVER = ["nsd", "-d", "-c", "nsd.conf"]


def write_dns(folder):
    """What makes NSD kube-dns and node-local-upstream: one server on both addresses."""
    folder.mkdir()
    zones = {"cluster.local": SOA, "example.com": SOA}
    for name, address in RECORDS.items():
        zone = next(z for z in zones if name.endswith("." + z))
        zones[zone] += f"{name}. 30 IN A {address}\n"
    text = f"server:\n  ip-address: {KUBE_DNS}\n  ip-address: {UPSTREAM}\n"
    for key, value in {"username": "", "chroot": "", "pidfile": "", "database": "", "zonesdir": ".", "xfrdir": ".", "xfrdfile": "xfrd", "zonelistfile": "list"}.items():
        text += f'  {key}: "{value}"\n'
    text += "remote-control:\n  control-enable: no\n"
    for zone, records in zones.items():
        (folder / zone).write_text(records)
        text += f'zone:\n  name: "{zone}"\n  zonefile: "{zone}"\n'
    (folder / "nsd.conf").write_text(text)


class Cluster:
    """Made in `folder`; everything is gone with the test."""

    def __init__(self, test, folder):
        self.test, self.folder = test, Path(folder)
        self.names = {role: f"nodens-{os.getpid()}-{role}" for role in ("node", "pod", "dns")}
        for role, name in self.names.items():
            # Of a run that was killed, and had this process' number.
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            self.ip("netns", "add", name)
            test.addCleanup(self.remove, role)
            self.on(role, "ip link set lo up")
        self.ip("link", "add", "eth0", "netns", self.names["pod"], "type", "veth", "peer", "name", "pod0", "netns", self.names["node"])
        self.ip("link", "add", "eth0", "netns", self.names["dns"], "type", "veth", "peer", "name", "eth0", "netns", self.names["node"])
        self.on("pod", "ip addr add 10.244.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.244.0.1")
        self.on("node", "ip addr add 10.244.0.1/24 dev pod0; ip link set pod0 up; ip addr add 10.10.0.1/24 dev eth0; ip link set eth0 up;"
                "ip route add 10.96.0.0/16 via 10.10.0.2; echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.on("dns", f"ip addr add 10.10.0.2/24 dev eth0; ip link set eth0 up; ip addr add {KUBE_DNS}/32 dev lo; ip addr add {UPSTREAM}/32 dev lo; ip route add 10.244.0.0/24 via 10.10.0.1")

    def path(self, role):
        return f"/run/netns/{self.names[role]}"

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def remove(self, role):
        for process in subprocess.run(["ip", "netns", "pids", self.names[role]], capture_output=True, text=True).stdout.split():
            os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", self.names[role]], capture_output=True)

    def on(self, role, script):
        """What a shell prints there."""
        done = subprocess.run(["ip", "netns", "exec", self.names[role], "sh", "-ec", script], capture_output=True, text=True, timeout=PATIENCE_S)
        self.test.assertEqual(done.returncode, 0, f"{script}: {done.stdout}{done.stderr}")
        return done.stdout

    def fetch(self, role, url, *file):
        done = subprocess.run(["ip", "netns", "exec", self.names[role], sys.executable, "-c", FETCH, url, *map(str, file)], capture_output=True, text=True, timeout=PATIENCE_S)
        self.test.assertEqual(done.returncode, 0, f"{url}: {done.stderr}")
        return done.stdout

    def start_dns(self):
        """kube-dns and node-local-upstream. Returns when they answer."""
        folder = self.folder / "nsd"
        write_dns(folder)
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(["ip", "netns", "exec", self.names["dns"], *DNS_SERVER], cwd=folder, stdout=log, stderr=log)
        self.test.addCleanup(server.wait)
        self.test.addCleanup(server.kill)
        end = time.monotonic() + PATIENCE_S
        while "status: NOERROR" not in self.on("node", f"dig +time=1 +tries=1 @{KUBE_DNS} cluster.local SOA || true"):
            self.test.assertLess(time.monotonic(), end, (folder / "log").read_text())

    def in_pod(self, resolv_conf, *command, timeout=PATIENCE_S):
        """A command in the Pod, with this resolv.conf."""
        resolv = self.folder / "resolv.conf"
        resolv.write_text(resolv_conf)
        with_resolv = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh", str(resolv)]
        return subprocess.run(["ip", "netns", "exec", self.names["pod"], *with_resolv, *command], capture_output=True, text=True, timeout=timeout)
