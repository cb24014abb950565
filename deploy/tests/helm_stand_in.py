"""What `helm` commands of the pages mean to the real engine, since no package registry has Helm's own program. As a program: `helm template`.

    helm_stand_in.py template NAME CHART [-n NAMESPACE] [-f FILE] [--set VALUES]
"""

import sys
from pathlib import Path

import helm_python
import yaml

from support import ROOT, helm

# What Helm has, as far as the pages use it: how many words stand behind each command, and flags with a value and without.
COMMANDS = {
    "install": 2, "upgrade": 2, "template": 2, "uninstall": 1, "rollback": 2, "test": 1, "get values": 1, "history": 1, "repo add": 2, "plugin install": 1, "mapkubeapis": 1,
}
WITH_VALUE = {"-n": "--namespace", "--namespace": "--namespace", "-f": "--values", "--set": "--set", "-o": "--output", "--revision": "--revision"}
SWITCHES = {"--install": "upgrade", "--no-hooks": "uninstall", "--all": "get values"}
# A folder with the original chart, which only its users have.
ORIGINAL = "./ack-node-local-dns"


class Command:
    """The words behind `helm`, read; what Helm would refuse raises ValueError."""

    def __init__(self, words):
        self.name = next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), None)
        if not self.name:
            raise ValueError(f"helm {words[0]} is no command that is known here")
        self.arguments, self.flags = [], []
        rest = iter(words[len(self.name.split()):])
        for word in rest:
            flag, given, value = word.partition("=")
            if flag in WITH_VALUE:
                value = value if given else next(rest, None)
                if value is None:
                    raise ValueError(f"{flag} needs a value")
                self.flags.append((WITH_VALUE[flag], value))
            elif word.startswith("-"):
                if SWITCHES.get(word) != self.name:
                    raise ValueError(f"helm {self.name} has no flag {word}")
            else:
                self.arguments.append(word)
        if len(self.arguments) != COMMANDS[self.name]:
            raise ValueError(f"helm {self.name} takes {COMMANDS[self.name]} words, not {self.arguments}")

    def render(self, folder):
        """The manifest that it makes, if the chart is ours; its values' files stand in `folder`."""
        name, chart = self.arguments
        if chart not in (str(helm.CHART.relative_to(ROOT)), "nodens/nodens"):
            raise ValueError(f"{chart} is not this chart")
        values, namespace = {}, "default"
        for flag, value in self.flags:
            if flag == "--namespace":
                namespace = value
            elif flag == "--values":
                values = helm.merge(values, yaml.safe_load((Path(folder) / value).read_text()))
            elif flag == "--set":
                values = helm.merge(values, helm_python.parse_set_string(value))
        return helm.manifest(values, name=name, namespace=namespace)


def main():
    try:
        command = Command(sys.argv[1:])
        if command.name != "template":
            raise ValueError(f"helm {command.name} needs a cluster")
        print(command.render(Path.cwd()))
    except (ValueError, helm_python.HelmError) as error:
        return f"Error: {error}"


if __name__ == "__main__":
    sys.exit(main())
