"""sbom.py [--version TAG] [--packages FILE]: prints what the image is made of, as CycloneDX JSON.

Crates are those that cargo's resolver takes for the two programs on the image's platform, with the features that they are built with:
`cargo tree` says which, `cargo metadata` what they are called and licensed, Cargo.lock what their archives' checksums are. What runs while
building and leaves no code of its own in the programs (procedural macros, build scripts, and what these use) has the scope "excluded".
Statically linked besides: Rust's standard library, the C library and the compiler's own. `--packages` names a file with lines
"NAME VERSION ARCHITECTURE" of Debian packages that are in the image too.
The same commit gives the same text: the time is SOURCE_DATE_EPOCH, and the serial number is made from the content.
"""

import argparse
import datetime
import json
import os
import subprocess
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("nodens", "nodens-admission")
TRIPLE = "x86_64-unknown-linux-gnu"
REPOSITORY = "https://github.com/nodens-dns/nodens"


def said_by(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def crates(edges):
    """(name, version) of each crate behind the programs along these edges, the programs themselves included."""
    roots = [word for program in PROGRAMS for word in ("-p", program)]
    tree = said_by("cargo", "tree", "--locked", "--quiet", *roots, "--edges", edges, "--target", TRIPLE, "--prefix", "none", "--format", "{p}")
    return {(name, version.removeprefix("v")) for name, version, *_ in (line.split(" ") for line in tree.splitlines() if line)}


def compiled(metadata, listed):
    """Of the crates that cargo's tree lists, those that a build compiles: some packages name crates for a build script that they do not have."""
    packages, nodes = ({thing["id"]: thing for thing in things} for things in (metadata["packages"], metadata["resolve"]["nodes"]))
    key = lambda identity: (packages[identity]["name"], packages[identity]["version"])
    reached, waiting = set(), [identity for identity in nodes if packages[identity]["name"] in PROGRAMS]
    while waiting:
        identity = waiting.pop()
        if identity in reached:
            continue
        reached.add(identity)
        has_script = any("custom-build" in target["kind"] for target in packages[identity]["targets"])
        kinds = {None, "build"} if has_script else {None}
        waiting += [d["pkg"] for d in nodes[identity]["deps"] if key(d["pkg"]) in listed and kinds & {k["kind"] for k in d["dep_kinds"]}]
    return {key(identity) for identity in reached}


def crate(package, checksum, scope):
    """One crate as a component. Checksums are of crates.io's archives; the project's own crates have none."""
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    if not package["source"]:
        purl += f"?vcs_url=git+{REPOSITORY}"
    component = {"type": "library", "bom-ref": purl, "name": package["name"], "version": package["version"], "scope": scope, "purl": purl}
    if package["license"]:
        # Older manifests write a slash for OR.
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def debian(name, version, architecture):
    purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "scope": "required", "purl": purl}


def linked_besides():
    """What comes with the tools and not by the lock file. Not on Debian, the C library's version is left out: nobody knows it."""
    said = dict(line.split(": ", 1) for line in said_by("rustc", "-vV").splitlines() if ": " in line)
    yield {"type": "library", "bom-ref": f"pkg:generic/rust-std@{said['release']}", "name": "rust-std", "version": said["release"], "scope": "required",
           "purl": f"pkg:generic/rust-std@{said['release']}", "licenses": [{"expression": "MIT OR Apache-2.0"}]}
    for file in ("libc.a", "libgcc_eh.a"):
        path = said_by("cc", f"-print-file-name={file}").strip()
        try:
            package = said_by("dpkg-query", "--search", os.path.realpath(path)).split(": ")[0]
            yield debian(*said_by("dpkg-query", "--show", "--showformat=${Package} ${Version} ${Architecture}", package).split(" "))
        except (OSError, subprocess.CalledProcessError):
            yield {"type": "library", "bom-ref": file, "name": file, "scope": "required", "description": "linked statically; its version is the building machine's"}


def document(version, packages=()):
    """The whole document, as a dictionary."""
    metadata = json.loads(said_by("cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", TRIPLE))
    known = {(p["name"], p["version"]): p for p in metadata["packages"]}
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    linked = crates("normal,no-proc-macro")
    building = compiled(metadata, crates("normal,build"))
    assert linked <= building, linked - building
    components, references = [], {}
    for key in sorted(building):
        component = crate(known[key], checksums[key], "required" if key in linked else "excluded")
        references[known[key]["id"]] = component["bom-ref"]
        components.append(component)
    components += linked_besides()
    components += [debian(*package) for package in packages]
    edges = [
        {"ref": references[node["id"]], "dependsOn": sorted(references[d["pkg"]] for d in node["deps"] if d["pkg"] in references and any(k["kind"] != "dev" for k in d["dep_kinds"]))}
        for node in metadata["resolve"]["nodes"] if node["id"] in references
    ]
    image = f"pkg:oci/nodens@{version}"
    edges.append({"ref": image, "dependsOn": sorted(c["bom-ref"] for c in components if c["name"] in PROGRAMS)})
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    body = {
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "container", "bom-ref": image, "name": "nodens", "version": version, "licenses": [{"expression": "Apache-2.0"}]},
        },
        "components": components,
        "dependencies": sorted(edges, key=lambda edge: edge["ref"]),
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="0")
    parser.add_argument("--packages", type=Path)
    given = parser.parse_args()
    packages = [line.split(" ") for line in given.packages.read_text().splitlines()] if given.packages else []
    print(json.dumps(document(given.version, packages), indent=1))


if __name__ == "__main__":
    main()
