"""The chart through the real Helm engine (the Go SDK, by way of PyPI's helm-python-sdk): render, order, lint, package.

Everything here is offline: no cluster is asked, so `lookup` finds nothing and capabilities are Helm's defaults.
"""

from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/chart/nodens"
RELEASE = "node-local-dns"
NAMESPACE = "kube-system"


def render(values=None, name=RELEASE, namespace=NAMESPACE, chart=CHART, **how):
    """Template path below `templates/` to text, as `helm template` has it."""
    with helm_python.Chart.load(chart) as loaded:
        texts = loaded.render(values or {}, name=name, namespace=namespace, **how)
    return {path.split("/templates/", 1)[1]: text for path, text in sorted(texts.items())}


def documents(values=None, **how):
    """All objects, those of hooks and tests included."""
    texts = render(values, **how)
    texts.pop("NOTES.txt", None)
    return [doc for text in texts.values() for doc in yaml.safe_load_all(text) if doc]


def manifest(values=None, name=RELEASE, namespace=NAMESPACE):
    """What `helm install` would create, in its order and as one text; hooks are not in it."""
    with helm_python.Config(storage_driver="memory", namespace=namespace) as config:
        with helm_python.Chart.load(CHART) as chart:
            return config.install(chart, name, values or {}, namespace=namespace, dry_run="client")["manifest"]


def lint(values=None, kube_version=None):
    """Findings of `helm lint --strict`."""
    return helm_python.lint(CHART, values or {}, strict=True, namespace=NAMESPACE, kube_version=kube_version)


def defaults():
    """values.yaml as data."""
    return yaml.safe_load((CHART / "values.yaml").read_text())


def merge(into, values):
    """Values over values, as Helm merges them: maps by key, everything else replaced."""
    result = dict(into)
    for key, value in values.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result


def at(path, value):
    """`at("env.enable_log", True)` is `{"env": {"enable_log": True}}`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value
