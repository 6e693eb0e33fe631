"""Build the ``aiassist`` distribution; everything but what is below stands in ``pyproject.toml``.

The folder ``Resources`` is shared with the Slicer extension and therefore lies outside the
package; a wheel carries a copy of it inside the package, so that an installed ``aiassist`` finds
its sample case and its bundled models without the checkout.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
BUNDLED = ["SampleData", "Models"]


class BuildWithResources(build_py):
    """Copy the shared resources into the built package."""

    def run(self):
        super().run()
        if self.editable_mode:  # an editable install reads them from the checkout
            return
        for folder in BUNDLED:
            target = Path(self.build_lib) / "aiassist" / "_resources" / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "Resources" / folder, target)


def version():
    text = (ROOT / "backend" / "aiassist" / "__init__.py").read_text(encoding="utf8")
    return re.search(r'__version__ = "(.+)"', text).group(1)


setup(
    version=version(),
    packages=find_packages("backend"),
    package_dir={"": "backend"},
    package_data={"aiassist": ["**/*.json"]},
    cmdclass={"build_py": BuildWithResources},
)
