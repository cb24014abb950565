"""Reads what deploy/image/build leaves: the OCI layout of one image. No library: a layout is a few files of JSON and a tar."""

import json
import tarfile
from pathlib import Path


class Image:
    """`Image(folder, "nodens")` for folder/nodens.oci."""

    def __init__(self, folder, name):
        self.folder, self.name = Path(folder), name
        self.layout = self.folder / f"{name}.oci"
        index = json.loads((self.layout / "index.json").read_text())
        assert len(index["manifests"]) == 1, index
        self.digest = index["manifests"][0]["digest"]
        self.manifest = self.read(self.digest)
        self.config = self.read(self.manifest["config"]["digest"])

    def blob(self, digest):
        return self.layout / "blobs" / digest.replace(":", "/")

    def read(self, digest):
        return json.loads(self.blob(digest).read_text())

    def layer(self):
        """The one layer, as an open tar file."""
        assert len(self.manifest["layers"]) == 1, self.manifest
        return tarfile.open(self.blob(self.manifest["layers"][0]["digest"]))

    def compressed_bytes(self):
        """What a node downloads."""
        return self.manifest["config"]["size"] + sum(layer["size"] for layer in self.manifest["layers"])

    def sbom(self):
        return json.loads((self.folder / f"{self.name}.cdx.json").read_text())

    def unpack(self, folder):
        """As a container runtime would, and as root."""
        with self.layer() as tar:
            # Python 3.12 and its security updates of older versions want a filter named.
            how = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            tar.extractall(folder, **how)
        return Path(folder)
