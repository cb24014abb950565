"""What the chart's tests share: the set of values they are run with, programs, and skips that nobody overlooks."""

import os
import shutil
import socket
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy/tools"))

import helm  # noqa: E402

# The parameters of ack-node-local-dns 1.3.2 as an operator sets them.
SEED = {
    "env": {"upstream_ip": "172.21.0.20", "cluster_domain": "example.org", "enable_log": True},
    "controller": {"enabled": True, "image": "registry.example.org/admission", "imageTag": "v1", "replicas": 3},
    "nodelocaldns": {
        "image": {"repository": "registry.example.org/agent", "tag": "v2"},
        "init_image": {"repository": "registry.example.org/busybox", "tag": "v3"},
    },
}

# Every branch of the templates is in at least one of these.
MATRIX = {
    "defaults": {},
    "seed": SEED,
    "agents-only": {"controller": {"enabled": False}},
    "policy": {"controller": {"mode": "policy", "injection": {"merge": "skip", "exemptNamespaces": ["arms-prom"], "virtualNodeKeys": ["example.org/virtual"]}}},
    "auto": {"controller": {"mode": "auto"}},
    "dual-stack": {"nodelocaldns": {"local_ips": ["169.254.20.10", "fd00:d5::10"]}, "env": {"upstream_ip": "fd00:10::20"}, "controller": {"kubeDNS": {"clusterIPs": ["10.96.0.10", "fd00:10::a"]}}},
    "ipv6": {"nodelocaldns": {"local_ips": ["fd00:d5::10"], "metrics": {"address": "[::1]:9253"}}},
    "every-switch": {
        "env": {"extra_searches": ["corp.example.org"], "require_upstream_ip": True, "upstream_ip": "10.96.0.53", "enable_log": True},
        "controller": {
            "imageDigest": "sha256:" + "0" * 64, "imagePullSecrets": ["pull"], "events": True, "hostNetwork": True, "extraArgs": ["--shutdown-delay=10s"],
            "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "networkPolicy": {"enabled": True}, "affinity": {"podAffinity": {}},
            "injection": {"default": "enabled", "podOptIn": True, "merge": "overwrite", "exemptNamespaces": ["arms-prom"], "virtualNodeKeys": ["example.org/virtual"],
                          "virtualNodePolicy": "inject", "lenientHostNetwork": True, "dualStack": "node-local", "marker": "label", "reportOnly": True, "rolloutPercent": 50},
            "webhook": {"failurePolicy": "Fail", "timeoutSeconds": 10, "matchConditions": [{"name": "not-job", "expression": "!has(object.spec.activeDeadlineSeconds)"}]},
        },
        "nodelocaldns": {
            "image": {"digest": "sha256:" + "1" * 64}, "packet_rules": "nftables", "skip_teardown": False, "forward_on_exit": True, "icmp_mask": False, "runtime": "tokio", "workers": 2,
            "cache": {"bytes": "32Mi", "success": {"ttl": 60}}, "forward": {"protocol": "prefer_udp", "max_concurrent": 1000},
            "zones": [{"zone": "corp.example.org", "upstreams": ["10.0.0.1", "10.0.0.2"], "success_ttl": 300, "denial_ttl": 60, "protocol": "as_client"}, {"zone": "example.net"}],
            "extra_corefile": "example.com:53 {\n    errors\n    cache 30\n    bind 169.254.20.10\n    forward . 10.0.0.3\n}", "extra_args": ["-syncinterval=30s"],
            "seccomp_profile": {"type": "Localhost", "localhostProfile": "nodens.json"}, "node_affinity": [{"key": "pool", "operator": "In", "values": ["a"]}],
            "pod_annotations": {"a": "b"}, "pod_labels": {"c": "d"}, "update": {"max_surge": "25%"},
        },
        "uninstall": {"requireDrained": True},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine-{{ .Release.Name }}"}}],
    },
    "own-corefile": {"nodelocaldns": {"corefile": ".:53 {\n    errors\n    cache 30\n    bind __PILLAR__LOCAL__DNS__\n    forward . __PILLAR__CLUSTER__DNS__\n    health 169.254.20.10:8081\n    ready 169.254.20.10:8181\n}"}},
    "cert-manager": {"controller": {"certificate": {"mode": "cert-manager"}}},
    "cert-manager-issuer": {"controller": {"certificate": {"mode": "cert-manager", "issuerRef": {"name": "corp", "kind": "ClusterIssuer"}}}},
    "secret": {"controller": {"certificate": {"mode": "secret", "secretName": "mine", "caBundle": "Q0E="}}},
    "no-hook": {"uninstall": {"hook": False}, "controller": {"podDisruptionBudget": {"enabled": False}}},
    "monitoring": {"monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "p"}}, "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
                                  "prometheusRule": {"enabled": True, "labels": {"release": "p"}}, "dashboard": {"enabled": True}}},
    "monitoring-agents-only": {"controller": {"enabled": False}, "monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
}


def find(documents, kind, name=None):
    """The one object of this kind, or of this kind and name."""
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
    return found[0]


def container(workload):
    return workload["spec"]["template"]["spec"]["containers"][0]


def free_port(host="127.0.0.1"):
    """One that nobody has for TCP nor for UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]


def skip(test, why, unobtainable=False):
    """Says that a test shows nothing here. With NODENS_NO_SKIP that is a failure, unless what is missing is in no package registry."""
    line = f"SKIPPED: {test.id()}: {why}, so it shows nothing"
    if os.environ.get("NODENS_NO_SKIP") and not unobtainable:
        test.fail(f"{line}; NODENS_NO_SKIP forbids that")
    if log := os.environ.get("NODENS_SKIPS"):
        with open(log, "a") as file:
            file.write(line + "\n")
    print(f"\n*** {line}", file=sys.stderr)
    raise unittest.SkipTest(why)


def program(test, variable, name):
    """A built program that the environment names, or one on the PATH."""
    path = os.environ.get(variable) or shutil.which(name)
    if not path or not os.access(path, os.X_OK):
        skip(test, f"there is no {name} ({variable})")
    return path


__all__ = ["MATRIX", "ROOT", "SEED", "container", "find", "free_port", "helm", "program", "skip"]
