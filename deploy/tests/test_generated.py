"""What is made from the chart is in step with it, and snapshots that show a reader what a change does. NODENS_BLESS=1 writes snapshots anew."""

import os
import subprocess
import unittest

import yaml

from support import MATRIX, ROOT, SEED, find, helm, program, skip
import generate

GOLDEN = ROOT / "deploy/tests/golden"


def snapshots():
    """File name to text."""
    def corefile(values):
        return find(helm.documents(values), "ConfigMap", "node-local-dns")["data"]["Corefile"]

    return {
        "seed-values.yaml": helm.manifest(SEED),
        "default.Corefile": corefile({}),
        "every-switch.Corefile": corefile(MATRIX["every-switch"]),
        "default.NOTES.txt": helm.render()["NOTES.txt"],
        "every-switch.NOTES.txt": helm.render(MATRIX["every-switch"])["NOTES.txt"],
    }


class Generated(unittest.TestCase):
    def test_files_are_in_step(self):
        for path, text in generate.files().items():
            with self.subTest(path):
                self.assertEqual((ROOT / path).read_text(), text, f"{path}: `make manifests` writes it")

    def test_snapshots(self):
        for name, text in snapshots().items():
            with self.subTest(name):
                path = GOLDEN / name
                if os.environ.get("NODENS_BLESS"):
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(text)
                self.assertEqual(path.read_text(), text, f"{name}: if that is what you want, NODENS_BLESS=1 make chart writes it")

    def test_raw_manifests_are_the_charts_objects(self):
        raw = [d for d in yaml.safe_load_all((ROOT / "deploy/manifests/nodens.yaml").read_text()) if d]
        chart = [d for d in yaml.safe_load_all(helm.manifest()) if d]
        self.assertEqual([(d["kind"], d["metadata"]["name"]) for d in raw], [(d["kind"], d["metadata"]["name"]) for d in chart])
        for ours, theirs in zip(raw, chart):
            # Only labels differ, and specs not at all.
            self.assertEqual({k: v for k, v in ours.items() if k != "metadata"}, {k: v for k, v in theirs.items() if k != "metadata"})
            self.assertNotIn("Helm", yaml.safe_dump(ours))

    def test_kustomize_builds_the_base_with_another_image(self):
        kubectl = program(self, "KUBECTL", "kubectl")
        built = subprocess.run([kubectl, "kustomize", ROOT / "deploy/manifests"], capture_output=True, text=True)
        if "unknown command" in built.stderr:
            skip(self, "this kubectl has no kustomize")
        self.assertEqual(built.returncode, 0, built.stderr)
        count = lambda text: len([d for d in yaml.safe_load_all(text) if d])
        self.assertEqual(count(built.stdout), count((ROOT / "deploy/manifests/nodens.yaml").read_text()))


if __name__ == "__main__":
    unittest.main()
