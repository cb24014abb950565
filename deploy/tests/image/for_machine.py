"""for_machine.py FOLDER: what `.ci/test-node` puts into its virtual machine, where agent/tests/vm/image.rs uses it.

    agent/          the DaemonSet's container, as crun runs it: its root is the unpacked image, its files are the rendered ones
    dns/            kube-dns and node-local-upstream
    pod/resolv.conf of a Pod that the image's admission server has injected
    pod/records     what there is to ask for: a name and its address a line
    endpoints       what the kubelet and Prometheus ask the agent: an address and a path a line

The image is the one that NODENS_IMAGE names, or that `make image` has made.
"""

import json
import os
import sys
from pathlib import Path

from containers import ROOT, Image
from node_and_pod import NODE_LOCAL, RECORDS, write_dns
from rendered import agent_bundle, injected_resolv_conf
from support import container, find, helm

# What makes the chart say where metrics are.
VALUES = {"monitoring": {"podMonitor": {"enabled": True}}}


def lines(pairs):
    return "".join(f"{one} {other}\n" for one, other in pairs)


def endpoints():
    documents = helm.documents(VALUES)
    daemonset = container(find(documents, "DaemonSet"))
    probes = [daemonset[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    metrics = next(d for d in documents if d["kind"] == "PodMonitor" and d["metadata"]["name"] == "node-local-dns")["spec"]["podMetricsEndpoints"][0]
    return [(f"{get['host']}:{get['port']}", get["path"]) for get in probes] + [(f"{NODE_LOCAL}:{metrics['portNumber']}", metrics.get("path", "/metrics"))]


folder = Path(sys.argv[1])
folder.mkdir()
image = Image(os.environ.get("NODENS_IMAGE", ROOT / "target/image"), "nodens")
rootfs = image.unpack(folder / "agent/rootfs")
(folder / "pod").mkdir()
(folder / "pod/resolv.conf").write_text(injected_resolv_conf(rootfs))
(folder / "pod/records").write_text(lines(RECORDS.items()))
(folder / "endpoints").write_text(lines(endpoints()))
write_dns(folder / "dns")
# It has done its part, and is the larger half of what the machine would have to unpack.
(rootfs / "nodens-admission").unlink()
# The machine itself is the node.
configuration = agent_bundle(folder / "agent", "rootfs", image, "/run/netns/node", VALUES)
(folder / "agent/config.json").write_text(json.dumps(configuration))
