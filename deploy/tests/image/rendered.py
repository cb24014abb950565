"""What a kubelet makes of the rendered chart on a node: the agent's container with its files, and the resolv.conf of a Pod that was injected."""

import yaml

from containers import bundle, once, seccomp_profile
from node_and_pod import KUBE_DNS, NODE_LOCAL, UPSTREAM
from support import container, find, helm

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [{"name": "web", "image": "example.org/web"}]}}
# As the kubelet writes it for each Service of the namespace.
SERVICES = {"NODE_LOCAL_UPSTREAM_SERVICE_HOST": UPSTREAM, "KUBE_DNS_UPSTREAM_SERVICE_HOST": UPSTREAM, "KUBE_DNS_SERVICE_HOST": KUBE_DNS}


def agent_bundle(folder, rootfs, image, network, values=None, *, io_uring=False, spec=None, corefile=None, corefile_name="Corefile"):
    """The configuration of the DaemonSet's container, the chart's or another one. What is mounted into it is written to `folder`, the
    bundle's, and named from there, so that it may be moved."""
    documents = helm.documents(values)
    spec = spec or container(find(documents, "DaemonSet"))
    (folder / "corefile").mkdir(parents=True)
    (folder / "corefile" / corefile_name).write_text(corefile or find(documents, "ConfigMap", "node-local-dns")["data"]["Corefile"])
    (folder / "xtables.lock").touch()
    # The node's own.
    (folder / "resolv.conf").write_text(f"nameserver {UPSTREAM}\n")
    mounts = [("corefile", "/etc/coredns", True), ("resolv.conf", "/etc/resolv.conf", True), (None, "/run/nodens", False), ("/proc/sys/net", "/host/net-sysctl", False),
              ("xtables.lock", "/run/xtables.lock", False)]
    return bundle(rootfs, image, spec, seccomp=seccomp_profile(io_uring), network=network, mounts=mounts, environment=SERVICES)


def injected_resolv_conf(rootfs):
    """A Pod's, by the dnsConfig that the image's admission server gives it."""
    said = once(rootfs, "/nodens-admission", "inject", "-q", "-f", "-", f"--kube-dns-ip={KUBE_DNS}", stdin=yaml.safe_dump(POD))
    spec = yaml.safe_load(said)["spec"]
    config = spec["dnsConfig"]
    assert (spec["dnsPolicy"], config["nameservers"]) == ("None", [NODE_LOCAL, KUBE_DNS]), spec
    options = " ".join(o["name"] + (f":{o['value']}" if o.get("value") is not None else "") for o in config["options"])
    return f"search {' '.join(config['searches'])}\n" + "".join(f"nameserver {a}\n" for a in config["nameservers"]) + f"options {options}\n"
