"""The image's recipe, with stand-ins for the two programs: what is in the image, that it is the same twice, and what the SBOM says.

The real programs in the real image are tested by deploy/tests/image (`make image-test`), which needs a release build.
"""

import datetime
import filecmp
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml

from image_layout import Image
from support import MATRIX, ROOT, container, helm, skip

BUILD = ROOT / "deploy/image/build"
APP_VERSION = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())["appVersion"]
# What the original chart and node-cache's manifest call, besides what ours does: the program of the admission server, and the image's own
# entry point with the agent's arguments.
OLD_PATHS = {"/node-cache": "nodens", "/node-local-dns-admission-controller": "nodens-admission"}


def build(test, output, stand_in="true"):
    """The image nodens with copies of a small program in it."""
    if os.geteuid() != 0:
        skip(test, "images are made as root", unobtainable=True)
    if not shutil.which("buildah"):
        skip(test, "buildah cannot be installed here (`make tools` tries to)", unobtainable=True)
    binaries = Path(output) / "binaries"
    binaries.mkdir(parents=True)
    for name in ("nodens", "nodens-admission"):
        shutil.copy(shutil.which(stand_in), binaries / name)
    done = subprocess.run([BUILD, "--binaries", binaries, "--output", output, "nodens"], capture_output=True, text=True, timeout=600)
    test.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return Image(output, "nodens")


class Recipe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.image = None

    def setUp(self):
        if not self.image:
            type(self).image = build(self, Path(self.folder.name) / "one")
        with self.image.layer() as tar:
            self.members = {"/" + member.name.rstrip("/"): member for member in tar}

    def text(self, path):
        with self.image.layer() as tar:
            return tar.extractfile(path.lstrip("/")).read().decode()

    def test_two_builds_are_one_image(self):
        other = build(self, Path(self.folder.name) / "two")
        self.assertEqual(self.image.digest, other.digest)
        self.assertTrue(filecmp.cmp(self.image.folder / "nodens.cdx.json", other.folder / "nodens.cdx.json", shallow=False))
        self.assertEqual((self.image.folder / "nodens.digest").read_text(), self.image.digest + "\n")

    def test_another_program_is_another_image(self):
        self.assertNotEqual(build(self, Path(self.folder.name) / "three", "false").digest, self.image.digest)

    def test_what_charts_call_is_there(self):
        called = {container(d)["command"][0] for values in MATRIX.values() for d in helm.documents(values) if d["kind"] in ("DaemonSet", "Deployment", "Job")}
        self.assertEqual(called, {"/nodens", "/nodens-admission"})
        for path in called:
            self.assertTrue(self.members[path].isreg() and self.members[path].mode & 0o7777 == 0o755, path)
        for path, target in OLD_PATHS.items():
            self.assertEqual((self.members[path].issym(), self.members[path].linkname), (True, target))
        # The original DaemonSet gives arguments alone.
        config = self.image.config["config"]
        self.assertEqual((config["Entrypoint"], config.get("Cmd"), config.get("User")), (["/nodens"], None, None))

    def test_users_are_those_of_the_chart_and_of_the_agent(self):
        users = {int(line.split(":")[2]): line.split(":")[0] for line in self.text("/etc/passwd").splitlines()}
        groups = {int(line.split(":")[2]): line.split(":")[0] for line in self.text("/etc/group").splitlines()}
        self.assertEqual(users, groups)
        wanted = {0} | {container(d)["securityContext"]["runAsUser"] for d in helm.documents() if d["kind"] in ("DaemonSet", "Deployment", "Job")}
        wanted.add(int(re.search(r"UID and GID (\d+)", (ROOT / "docs/privileges.md").read_text())[1]))
        self.assertEqual(set(users), wanted)

    def test_files_are_roots_and_of_the_commits_time(self):
        created = datetime.datetime.fromisoformat(self.image.config["created"].replace("Z", "+00:00")).timestamp()
        for path, member in self.members.items():
            with self.subTest(path):
                self.assertEqual((member.uid, member.gid), (0, 0))
                self.assertEqual(member.mtime, created)
                writable = member.mode & 0o022 and not member.issym()
                self.assertEqual(bool(writable), path == "/tmp")
        self.assertEqual(self.members["/tmp"].mode & 0o7777, 0o1777)

    def test_nothing_else_is_in_it(self):
        files = {path for path, member in self.members.items() if not member.isdir()}
        self.assertEqual(files, {"/nodens", "/nodens-admission", *OLD_PATHS, "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/usr/share/doc/nodens/LICENSE", "/var/run"})

    def test_labels_say_what_it_is(self):
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in self.image.config["config"]["Labels"].items()}
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        self.assertEqual(version, APP_VERSION)
        self.assertEqual((labels["title"], labels["version"], labels["licenses"]), ("nodens", version, "Apache-2.0"))
        self.assertRegex(labels["revision"], r"^([0-9a-f]{40}(-dirty)?|unknown)$")
        self.assertEqual(set(labels), {"title", "description", "version", "revision", "licenses", "source", "documentation"})

    def test_docker_can_load_it_under_the_charts_name(self):
        with tarfile.open(self.image.folder / "nodens.tar") as tar:
            manifest = json.load(tar.extractfile("manifest.json"))
        wanted = helm.defaults()["nodelocaldns"]["image"]["repository"] + ":" + APP_VERSION
        self.assertEqual([image["RepoTags"] for image in manifest], [[wanted]])


class Sbom(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = subprocess.run(["python3", ROOT / "deploy/image/sbom.py"], capture_output=True, text=True, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1"})
        cls.sbom = json.loads(done.stdout)
        cls.crates = {(c["name"], c["version"]): c for c in cls.sbom["components"] if c["purl"].startswith("pkg:cargo/")}
        cls.lock = {(p["name"], p["version"]): p for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}

    def test_each_crate_is_the_lock_files(self):
        self.assertLessEqual(set(self.crates), set(self.lock))
        for key, crate in self.crates.items():
            with self.subTest(key):
                checksum = self.lock[key].get("checksum")
                self.assertEqual([h["content"] for h in crate.get("hashes", [])], [checksum] if checksum else [])
                self.assertTrue(crate["licenses"][0]["expression"])

    def test_what_tests_and_other_programs_use_is_not_in_it(self):
        names, locked = {name for name, _ in self.crates}, {name for name, _ in self.lock}
        absent = {"nodens-testkit", "nodens-sim", "nodens-fuzz", "nodens-benches", "proptest", "bit-vec", "loom"}
        self.assertLessEqual(absent, locked)
        self.assertEqual(absent & names, set())

    def test_what_is_linked_is_required_and_what_only_builds_is_not(self):
        scopes = {name: crate["scope"] for (name, _), crate in self.crates.items()}
        for linked in ("nodens", "nodens-admission", "nodens-core", "nodens-runtime-uring", "hickory-proto", "io-uring", "tokio", "kube", "rustls", "ring"):
            self.assertEqual(scopes[linked], "required", linked)
        for building in ("serde_derive", "proc-macro2", "cc"):
            self.assertEqual(scopes[building], "excluded", building)
        others = {c["name"] for c in self.sbom["components"] if c not in self.crates.values()}
        self.assertIn("rust-std", others)
        self.assertEqual(len(others), 3, "the C library and the compiler's own")

    def test_references_lead_somewhere(self):
        references = [c["bom-ref"] for c in self.sbom["components"]] + [self.sbom["metadata"]["component"]["bom-ref"]]
        self.assertEqual(len(references), len(set(references)))
        for edge in self.sbom["dependencies"]:
            self.assertLessEqual({edge["ref"], *edge["dependsOn"]}, set(references))


class Containerfile(unittest.TestCase):
    def test_it_says_what_the_script_says(self):
        """Nothing runs it here, so at least its words are the script's."""
        file, script = (ROOT / "deploy/image/Containerfile").read_text(), BUILD.read_text()
        for words in ("-C target-feature=+crt-static", "-C link-arg=-Wl,--build-id=none", "cargo build --locked --release --target", "-p nodens -p nodens-admission",
                      "strip --strip-all", "PATH=/:/usr/sbin:/usr/bin:/sbin:/bin", "etc/coredns", "deploy/image/root/."):
            self.assertIn(words, file)
            self.assertIn(words, script)
        for path, target in OLD_PATHS.items():
            self.assertRegex(file, rf"ln -s {target} /root-of-image{path} ")
            self.assertRegex(script, rf'ln -s {target} "\$root{path}"')
        self.assertEqual(file.count('ENTRYPOINT ["/nodens"]'), 2)
        toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
        self.assertIn(f"library/rust:{toolchain}-", file)


if __name__ == "__main__":
    unittest.main()
