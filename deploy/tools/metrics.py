"""The table of metrics, read from the sources: a name and its help stand side by side wherever a metric is written."""

import re

from helm import ROOT

# A name, a comma, the help; comments and line breaks may lie between.
PAIR = re.compile(r'"((?:coredns|nodens|process)_[a-z0-9_]+)",\s*"([^"]+)"')
# Where the admission server registers one: name, help, the field that counts.
REGISTERED = re.compile(r'registry\.register\(\s*"([a-z_]+)",\s*"([^"]+)",\s*([^)]+)', re.S)


def agent():
    """Name to help, of /metrics of the agent."""
    found = {}
    for path in sorted((ROOT / "agent/src/admin").rglob("*.rs")):
        text = path.read_text().split("#[cfg(test)]")[0]
        if "tests" not in path.name and path.name != "strict_parser.rs":
            found.update(PAIR.findall(text))
    return found


def admission():
    """The same of the admission server. The client library writes `_total` behind counters and `_info` behind what is only labels."""
    text = (ROOT / "admission/src/metrics.rs").read_text()
    prefix = re.search(r'PREFIX: &str = "(\w+)"', text)[1]
    found = {}
    for name, help_, value in REGISTERED.findall(text):
        field = re.search(r"metrics\.(\w+)", value)
        if field is None:
            suffix = "_info"
        else:
            suffix = "_total" if re.search(rf"\b{field[1]}: [^\n]*Counter\b", text) else ""
        found[f"{prefix}_{name}{suffix}"] = help_
    return found


def known(name):
    """Whether a name in a query is one of ours, the series of a histogram included."""
    names = agent() | admission()
    return name in names or re.sub(r"_(bucket|sum|count)$", "", name) in names


def kind(name):
    if name.endswith("_total"):
        return "counter"
    is_histogram = re.search(r"_duration_seconds$|(request|response)_size_bytes$|patch_bytes$", name)
    return "histogram" if is_histogram else "gauge"


def table(metrics):
    lines = ["| metric | kind | what it says |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind(name)} | {help_.rstrip('.')} |" for name, help_ in sorted(metrics.items())]
    return "\n".join(lines) + "\n"
