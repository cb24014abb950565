"""The image that `make image` made: its programs start from its root alone, and everything that is said of it is true."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from containers import ROOT, built, needs, once

COMPRESSED_MIB = 15
TRIPLE = "x86_64-unknown-linux-gnu"


class Built(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.rootfs = None

    def setUp(self):
        self.image = built(self, "nodens")
        needs(self, "readelf")
        if not self.rootfs:
            type(self).rootfs = self.image.unpack(Path(self.folder.name) / "rootfs")

    def test_programs_start_under_each_name(self):
        version = self.image.config["config"]["Labels"]["org.opencontainers.image.version"]
        for path in ("/nodens", "/node-cache"):
            self.assertIn(version, once(self.rootfs, path, "-version"))
        for path in ("/nodens-admission", "/node-local-dns-admission-controller"):
            self.assertIn(version, once(self.rootfs, path, "--version"))

    def test_programs_need_nothing_beside_them(self):
        for name in ("nodens", "nodens-admission"):
            said = subprocess.run(["readelf", "--wide", "--program-headers", "--dynamic", "--sections", self.rootfs / name], capture_output=True, text=True, check=True).stdout
            self.assertNotIn("INTERP", said)
            self.assertNotIn("(NEEDED)", said)
            self.assertNotIn(".symtab", said)
            # At a random place in memory all the same.
            self.assertIn("PIE", said)

    def test_programs_name_no_path_of_the_machine(self):
        """What would differ from machine to machine, and tell about the one that built it."""
        places = {str(ROOT), os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo")), str(self.image.folder.parent)}
        for name in ("nodens", "nodens-admission"):
            bytes_of_it = (self.rootfs / name).read_bytes()
            for place in places:
                self.assertNotIn(place.encode() + b"/", bytes_of_it, name)
            self.assertIn(b"/cargo/registry/src/", bytes_of_it, "paths are there, rewritten")

    def test_it_is_small(self):
        mib = self.image.compressed_bytes() / 2**20
        print(f"measured: {self.image.name} {self.image.digest} {mib:.2f} MiB compressed")
        self.assertLess(mib, COMPRESSED_MIB)

    def test_the_sbom_is_what_the_compiler_made(self):
        """Crates that cargo says it compiled for the image's platform are the ones called required; those for the building machine alone, excluded."""
        linked, compiled = set(), set()
        for line in (self.image.folder / "compiled.json").read_text().splitlines():
            message = json.loads(line)
            if message["reason"] == "compiler-artifact":
                # …#NAME@VERSION; the name is left out where the folder has it.
                place, _, identity = message["package_id"].rpartition("#")
                crate = identity if "@" in identity else f"{place.rsplit('/', 1)[-1]}@{identity}"
                compiled.add(crate)
                if any(f"/{TRIPLE}/" in file for file in message["filenames"]):
                    linked.add(crate)
        crates = [c for c in self.image.sbom()["components"] if c["purl"].startswith("pkg:cargo/")]
        named = lambda *scopes: {f"{c['name']}@{c['version']}" for c in crates if c["scope"] in scopes}
        self.assertGreater(len(linked), 150)
        self.assertEqual(named("required") ^ linked, set())
        self.assertEqual(named("required", "excluded") ^ compiled, set())


class WithIptables(unittest.TestCase):
    def test_the_sbom_has_debians_packages_as_they_are_in_the_image(self):
        image = built(self, "nodens-iptables")
        with image.layer() as tar:
            inside = {member.name.rsplit("/", 1)[1]: tar.extractfile(member).read().decode() for member in tar if "var/lib/dpkg/status.d/" in member.name}
        named = {c["name"]: c["version"] for c in image.sbom()["components"] if c["purl"].startswith("pkg:deb/")}
        self.assertLessEqual({"iptables", "libc6", "libxtables12"}, set(inside))
        for package, control in inside.items():
            self.assertIn(f"Version: {named.pop(package)}\n", control)
        # What is linked into our programs.
        self.assertEqual({re.sub(r"-\d+-dev$|-dev$", "", name) for name in named}, {"libc6", "libgcc"})


if __name__ == "__main__":
    unittest.main()
