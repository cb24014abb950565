"""`make chart-package`: what `helm repo add` and `helm install` find."""

import tempfile
import unittest
from pathlib import Path

import helm_python
import yaml

from support import helm
from package import package


class Package(unittest.TestCase):
    def test_the_index_leads_to_a_package_that_renders_what_the_folder_does(self):
        with tempfile.TemporaryDirectory() as folder:
            archive = package(folder, "https://charts.example.org")
            entry = yaml.safe_load((Path(folder) / "index.yaml").read_text())["entries"]["nodens"][0]
            self.assertEqual(entry["urls"], [f"https://charts.example.org/{archive.name}"])
            with helm_python.Chart.load_archive(archive.read_bytes()) as chart:
                packed = chart.render({}, name=helm.RELEASE, namespace=helm.NAMESPACE)
        self.assertEqual({path.split("/templates/", 1)[1]: text for path, text in packed.items()}, helm.render())


if __name__ == "__main__":
    unittest.main()
