"""Everything in the repository that is made from the chart or the sources. Without arguments it writes the files (`make manifests`);
the tests compare them with what is there."""

import json
import os
import re
import subprocess
import sys

import yaml

import metrics
import parameters
from helm import CHART, ROOT, manifest

MADE = "<!-- Made by `make manifests`; change the source and run that. -->\n"

# `nodens-admission policy` is asked with words that the chart's template replaces by those of the values.
LOCAL, EXEMPT = "192.0.2.254", "nodens-exempt"
MERGE_MODES = ("merge", "skip", "overwrite")


def raw_manifest():
    """What the chart installs with its defaults, without what only Helm needs. The label that cluster managers prune by goes as well."""
    lines = []
    for line in manifest().splitlines():
        drop = r"\s*(helm\.sh/chart|app\.kubernetes\.io/managed-by|kubernetes\.io/cluster-service): |# Source: "
        if not re.match(drop, line):
            lines.append(line)
    text = re.sub(r"\n\n+", "\n", "\n".join(lines)).strip()
    return (
        "# Node-local DNS without Helm: the chart's objects with its default values, made by `make manifests`.\n"
        "# kubectl apply -f nodens.yaml; docs/install.md says what to change, docs/uninstall.md how to take it away.\n"
        + text + "\n"
    )


def kustomization():
    return (
        "# A base for kustomize, made by `make manifests`. Overlays change images, addresses and namespace selectors.\n"
        + yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["nodens.yaml"],
            "images": [{"name": "ghcr.io/nodens-dns/nodens", "newTag": yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]}],
        }, sort_keys=False)
    )


def chart_readme():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return (
        f"{MADE}\n# nodens\n\n{chart['description']}\n\n"
        f"Chart {chart['version']}, application {chart['appVersion']}, Kubernetes {chart['kubeVersion'].removesuffix('-0')}.\n\n"
        "```console\n$ helm install node-local-dns deploy/chart/nodens --namespace kube-system\n```\n\n"
        "Names, labels, selectors and values of ack-node-local-dns 1.3.2 are kept. Installation, upgrades from that chart and from\n"
        "node-cache, and removal are in [docs/](../../../docs/install.md).\n\n"
        f"## Parameters\n\n{parameters.english()}"
    )


def parameters_page():
    return (
        f"{MADE}\n# Parameters\n\n"
        "Values of the chart. Those of ack-node-local-dns 1.3.2 (`env.upstream_ip`, `env.cluster_domain`, `env.enable_log`,\n"
        "`controller.enabled`, `controller.image`, `controller.imageTag`, `controller.replicas`, `nodelocaldns.image.*`,\n"
        "`nodelocaldns.init_image.*`) keep their names and mean the same. 中文: [zh/parameters.md](zh/parameters.md)\n\n"
        f"{parameters.english()}"
    )


def parameters_page_zh():
    return (
        f"{MADE}\n# 参数说明\n\n"
        "本 Chart 的参数。ack-node-local-dns 1.3.2 的参数（`env.upstream_ip`、`env.cluster_domain`、`env.enable_log`、`controller.enabled`、\n"
        "`controller.image`、`controller.imageTag`、`controller.replicas`、`nodelocaldns.image.*`、`nodelocaldns.init_image.*`）名称、位置与含义保持不变。\n"
        "English: [../parameters.md](../parameters.md)\n\n"
        f"{parameters.chinese()}"
    )


def metrics_page():
    return (
        f"{MADE}\n# Metrics\n\n"
        "Names that begin with `coredns_` are CoreDNS' and node-cache's, so dashboards and alerts made for these keep working.\n\n"
        f"## Agent: `:9253/metrics`\n\n{metrics.table(metrics.agent())}\n"
        f"## Admission server: `:8080/metrics`\n\n{metrics.table(metrics.admission())}\n"
        "Labels and meaning in detail: [admission-server.md](admission-server.md).\n"
    )


def files():
    """Path to text."""
    made = CHART / "files"
    return {
        "deploy/manifests/nodens.yaml": raw_manifest(),
        "deploy/manifests/kustomization.yaml": kustomization(),
        "deploy/monitoring/alerts.yaml": (made / "alerts.yaml").read_text(),
        "deploy/monitoring/dashboard.json": (made / "dashboard.json").read_text(),
        "deploy/chart/nodens/README.md": chart_readme(),
        "docs/parameters.md": parameters_page(),
        "docs/zh/parameters.md": parameters_page_zh(),
        "docs/metrics.md": metrics_page(),
    }


def policy_files(program):
    """The parts of a MutatingAdmissionPolicy that are CEL, as `nodens-admission policy` prints them."""
    made = {}
    for mode in MERGE_MODES:
        command = [program, "policy", f"--nameserver={LOCAL}", f"--exempt-namespaces={EXEMPT}", "--kube-dns-ip=192.0.2.253", f"--merge={mode}"]
        items = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["items"]
        spec = next(item["spec"] for item in items if item["kind"] == "MutatingAdmissionPolicy")
        parts = {key: spec[key] for key in ("matchConditions", "variables", "mutations")}
        made[f"deploy/chart/nodens/files/policy-{mode}.json"] = json.dumps(parts, indent=2, ensure_ascii=False) + "\n"
    return made


def main():
    if program := os.environ.get("NODENS_ADMISSION_BIN"):
        for path, text in policy_files(program).items():
            (ROOT / path).write_text(text)
    made = files()
    for path, text in made.items():
        target = ROOT / path
        if not target.exists() or target.read_text() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
