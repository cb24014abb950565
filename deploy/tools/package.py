"""The chart as a package and an index, the way `helm repo add` wants them: FOLDER/nodens-VERSION.tgz and FOLDER/index.yaml.

package.py FOLDER [URL]: URL is where the folder will be served.
"""

import sys
from pathlib import Path

import helm_python

from helm import CHART


def package(folder, url=""):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archive = Path(helm_python.package(CHART, destination=folder))
    helm_python.repo_index_generate(folder, base_url=url)
    return archive


if __name__ == "__main__":
    print(package(*sys.argv[1:3]))
