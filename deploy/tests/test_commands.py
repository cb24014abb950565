"""Each command that a page shows: those of marked blocks are run (page_runner.py), those for a cluster are held against what can be known without one.

The programs are the debug programs of the other tests, also where a page says `cargo run --release`: nothing is compiled here.
"""

import re
import subprocess
import sys
import unittest

import yaml

import pages
from helm_stand_in import ORIGINAL, Command
from page_runner import Machine, need
from support import ROOT, helm, program

# The marked blocks of each page. A page that loses one, or gets one, says so here.
MARKED = {
    "README.md": 6,
    "deploy/seccomp/README.md": 1,
    "docs/admission.md": 5,
    "docs/doctor.md": 1,
    "docs/install.md": 5,
    "docs/migrate-from-ack.md": 3,
    "docs/migrate-from-node-cache.md": 3,
    "docs/simulation.md": 1,
    "docs/troubleshooting.md": 2,
    "docs/uninstall.md": 1,
    "docs/zh/README.md": 6,
    "docs/zh/install.md": 5,
    "docs/zh/migrate-from-ack.md": 3,
    "docs/zh/troubleshooting.md": 2,
    "docs/zh/uninstall.md": 1,
}
# Objects that are not the chart's: of clusters, of Terway, and an example.
FOREIGN = {"coredns", "kube-dns", "eni-config", "web"}


def marked(page):
    return [block for block in pages.blocks(page) if block.marks]


class Marked(unittest.TestCase):
    ran = 0

    @classmethod
    def tearDownClass(cls):
        print(f"{cls.ran} blocks of commands were run, of {len(MARKED)} pages", file=sys.stderr)

    def test_no_page_lost_its_marks(self):
        self.assertEqual({page: len(marked(page)) for page in pages.all_pages() if marked(page)}, MARKED)
        for page in MARKED:
            for block in marked(page):
                for mark in block.marks:
                    self.assertRegex(mark, {"console": r"^(run|start)$", "yaml": r"^(values|file=.+)$"}.get(block.language, r"^file=.+$"), str(block))

    def test_commands_do_what_the_page_shows(self):
        for page in MARKED:
            with self.subTest(page):
                need(self, page)
                Marked.ran += Machine(self).page(page)

    def test_the_chart_takes_the_values_that_pages_show(self):
        count = 0
        for page in MARKED:
            for block in marked(page):
                if "values" in block.marks:
                    with self.subTest(str(block)):
                        helm.manifest(yaml.safe_load(block.text))
                        count += 1
        self.assertGreater(count, 2)


class Runner(unittest.TestCase):
    """That a block can fail."""

    def page(self, text):
        return Machine(self).page("a page", text)

    def test_what_is_as_shown_is_counted(self):
        self.assertEqual(self.page("```text file=a/b\none\ntwo\nthree\n```\n```console run\n$ cat a/b  # a comment\none\n…\nth…\n$ true\n```\n```console\n$ false\n```\n"), 1)

    def test_a_command_that_fails(self):
        with self.assertRaisesRegex(AssertionError, "a page:1: `cat nothing` ended with 1"):
            self.page("```console run\n$ cat nothing\n```\n")

    def test_a_command_that_says_something_else(self):
        for said in ("one", "one\\ntwo\\nthree", "two\\none"):
            with self.assertRaisesRegex(AssertionError, "is shown as"):
                self.page(f"```console run\n$ printf '{said}\\n'\none\ntwo\n```\n")

    def test_what_is_started_has_to_say_it_to_stay_and_to_end_well(self):
        def started(script):
            return self.page(f"```console start\n$ {script}\nthere\n```\n```console run\n$ sleep 1\n```\n")

        self.assertEqual(started("trap 'exit 0' INT; echo there; while :; do sleep 0.1; done"), 2)
        for script, why in (("echo elsewhere", "up to its end"), ("echo there", "had ended"), ("trap 'exit 3' INT; echo there; while :; do sleep 0.1; done", "after Ctrl-C")):
            with self.assertRaisesRegex(AssertionError, why):
                started(script)

    def test_no_cluster_is_reached(self):
        program(self, "KUBECTL", "kubectl")
        with self.assertRaisesRegex(AssertionError, "ended with 1"):
            self.page("```console run\n$ kubectl get pods\n```\n")


class ForACluster(unittest.TestCase):
    """Commands, flags, files and names of objects that are not there are seen without a cluster."""

    def setUp(self):
        self.documents = helm.documents()

    def each(self, least, *programs):
        """Commands of the pages; none of a page that shows many must be overlooked."""
        found = [(place, words) for page in pages.all_pages() for place, words in pages.told(page, *programs)]
        self.assertGreaterEqual(len(found), least)
        return found

    def kubectl(self, kubectl, words):
        """Raises AssertionError for what kubectl has not: it reads all flags before it prints its help."""
        asked = subprocess.run([kubectl, *words, "--help"], capture_output=True, text=True)
        self.assertEqual(asked.returncode, 0, f"{words}: {asked.stderr}")
        _, _, usage = asked.stdout.partition("\nUsage:\n")
        self.assertTrue(usage and "SUBCOMMAND" not in usage, f"{words}: {asked.stdout}")

    def names(self, words):
        """Objects and labels that a command names are the chart's, or known to be others'."""
        kinds = {}
        for document in self.documents:
            kinds.setdefault(document["kind"].lower(), set()).add(document["metadata"]["name"])
        pairs = [word.split("/") for word in words if word.count("/") == 1] + list(zip(words, words[1:]))
        for kind, name in pairs:
            if kind in ("daemonset", "deployment", "service", "configmap", "secret") and re.fullmatch(r"[a-z0-9-]+", name) and name not in FOREIGN:
                self.assertIn(name, kinds[kind], " ".join(words))
        labels = [d["spec"]["template"]["metadata"]["labels"] for d in self.documents if "template" in d.get("spec", {})]
        for flag, selector in zip(words, words[1:]):
            if flag == "-l" and selector != "k8s-app=kube-dns":
                key, _, value = selector.partition("=")
                self.assertIn(value, [l.get(key) for l in labels], " ".join(words))

    def test_kubectl_has_what_pages_and_notes_tell_people_to_type(self):
        kubectl = program(self, "KUBECTL", "kubectl")
        notes = [("NOTES.txt", words) for line in helm.render()["NOTES.txt"].splitlines() if line.strip().startswith("kubectl") for words in pages.simple_commands(line)]
        self.assertGreaterEqual(len(notes), 2)
        for place, words in [*self.each(30, "kubectl"), *notes]:
            with self.subTest(f"{place}: {' '.join(words)}"):
                self.kubectl(kubectl, words[1:])
                self.names(words)
                for flag, path in zip(words, words[1:]):
                    if flag == "-f" and path != "-":
                        self.assertTrue((ROOT / path).exists(), path)

    def test_helm_has_it_and_the_chart_takes_the_values(self):
        for place, words in self.each(15, "helm"):
            # The names of commands, which the text speaks of; and Helm 2, which had others.
            if len(words) == 2 or " ".join(words[1:]) in ("repo add", "delete --purge"):
                continue
            with self.subTest(f"{place}: {' '.join(words)}"):
                command = Command(words[1:])
                # Files of values are written by another command of the page; those that it shows are rendered above.
                command.flags = [(flag, value) for flag, value in command.flags if flag != "--values"]
                if command.name in ("install", "upgrade") and command.arguments[1] != ORIGINAL:
                    command.render(ROOT)

    def test_our_programs_take_their_command_lines(self):
        for name, variable, ask in (("nodens", "NODENS_BIN", "-help"), ("nodens-admission", "NODENS_ADMISSION_BIN", "--help")):
            path = program(self, variable, name)
            for place, words in self.each(15, name):
                with self.subTest(f"{place}: {' '.join(words)}"):
                    # `IP` stands for one, and a flag at the end of a sentence for its value as well.
                    words = ["192.0.2.1" if word == "IP" else word for word in words[1:]] + (["FILE"] if words[-1] == "-f" else [])
                    asked = subprocess.run([path, *words, ask], capture_output=True, text=True)
                    self.assertEqual(asked.returncode, 0, asked.stderr)

    def test_make_has_its_targets(self):
        targets = (ROOT / "Makefile").read_text()
        found = {target for page in pages.all_pages() for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", pages.text(page))}
        self.assertGreater(len(found), 5)
        for target in found:
            self.assertRegex(targets, rf"(?m)^{target}:")

    def test_what_is_not_there_is_seen(self):
        kubectl = program(self, "KUBECTL", "kubectl")
        for words in (["rollout", "statsu", "daemonset/a"], ["get", "pods", "--no-such-flag"], ["nosuch"]):
            with self.assertRaises(AssertionError):
                self.kubectl(kubectl, words)
        for words in (["rollout", "status", "daemonset/nodens"], ["delete", "service", "node-local-upstraem"], ["get", "pods", "-l", "k8s-app=nodens"]):
            with self.assertRaises(AssertionError):
                self.names(words)
        for words in (["instal", "a", "b"], ["install", "a"], ["install", "a", "b", "--no-such-flag"], ["test", "a", "--all"]):
            with self.assertRaises(ValueError):
                Command(words)
        with self.assertRaises(ValueError):
            Command(["install", "a", "deploy/chart/nodes"]).render(ROOT)
        with self.assertRaises(helm.helm_python.HelmError):
            Command(["install", "a", "deploy/chart/nodens", "--set", "controller.replicsa=3"]).render(ROOT)


if __name__ == "__main__":
    unittest.main()
