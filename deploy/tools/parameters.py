"""The tables of parameters, from the comments of values.yaml: `# -- what it is` above a key describes the key and all below it."""

import json
import re

import yaml

from helm import CHART, ROOT

TRANSLATIONS = ROOT / "deploy/tools/parameters.zh.yaml"


def parameters():
    """(path, default, description) in the file's order; a key without a description fails, unless its keys have them."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    found, path, comment, covered = [], [], None, None
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.fullmatch(r"\s*# -- (.+)", line):
            comment = match[1]
            continue
        match = re.match(r"( *)([A-Za-z_][\w]*):(.*)", line)
        if not match:
            continue
        depth = len(match[1]) // 2
        if covered is not None and depth > covered:
            continue
        covered = None
        path = path[:depth] + [match[2]]
        value = values
        for key in path:
            value = value[key]
        if comment is not None:
            found.append((".".join(path), value, comment))
            comment, covered = None, depth
        elif not isinstance(value, dict) or not value:
            raise SystemExit(f"values.yaml:{number}: {'.'.join(path)} has no description: write `# -- …` above it")
    return found


def table(head, rows):
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for path, default, description in rows:
        shown = json.dumps(default, ensure_ascii=False)
        lines.append("| `{}` | {} | `{}` |".format(path, description.replace("|", "\\|"), shown.replace("|", "\\|")))
    return "\n".join(lines) + "\n"


def english():
    return table(("parameter", "what it is", "default"), parameters())


def chinese():
    """The same with the descriptions of parameters.zh.yaml, which has to have each and no other."""
    words = yaml.safe_load(TRANSLATIONS.read_text())
    rows = parameters()
    missing = [path for path, _, _ in rows if path not in words]
    stray = sorted(set(words) - {path for path, _, _ in rows})
    if missing or stray:
        raise SystemExit(f"parameters.zh.yaml: missing {missing}, without a parameter {stray}")
    return table(("参数", "描述", "默认值"), [(path, default, words[path]) for path, default, _ in rows])
