# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What pyproject.toml cannot say: files for ament, and all of it again for old setuptools."""

import json
import os
from glob import glob
from pathlib import Path

import setuptools
from setuptools.command.install import install

PACKAGE = "td3_driver"
# For bags that do not hold the definitions of their messages.
DEFINITIONS = glob("interfaces/*/msg")

# Setuptools 59, with which colcon builds on Humble, does not read [project] of pyproject.toml (61
# does), and with --symlink-install colcon builds in a folder without that file. The facts belong
# there; test/test_package.py holds these equal to them.
REPEATED = {
    "name": PACKAGE,
    "version": "0.1.0",
    "python_requires": ">=3.10,<3.13",
    "install_requires": [
        "carla==0.9.16",
        "gymnasium>=1.0",
        "lz4",
        "matplotlib",
        "mcap>=1.6",
        "networkx",
        "numpy>=1.26",
        "packaging",
        "pillow",
        "pydantic>=2",
        "pyyaml",
        "rosbags>=0.11",
        "safetensors",
        "tensorboard",
        "torch>=2.5",
        "tqdm",
        "zstandard",
    ],
    "entry_points": {"console_scripts": ["td3-driver = td3_driver.interpreter:command_line"]},
}
READS_PROJECT = (
    int(setuptools.__version__.split(".")[0]) >= 61 and Path("pyproject.toml").is_file()
)


class Install(install):
    """Notes in a workspace where the nodes may find an environment with PyTorch.

    colcon builds for the system's Python; td3_driver/interpreter.py looks at the note.
    """

    def run(self):
        """Install, and leave the note beside the package's modules."""
        super().run()
        if self.root is not None:
            return  # A wheel, which is for the Python that it is installed in.
        checkout = Path(__file__).resolve().parent
        note = {"checkout": str(checkout), "environment": os.environ.get("VIRTUAL_ENV", "")}
        Path(self.install_lib, PACKAGE, "build.json").write_text(json.dumps(note))


distribution = setuptools.setup(
    cmdclass={"install": Install},
    packages=setuptools.find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: ["py.typed"],
        f"{PACKAGE}.roads": ["maps/*.xodr"],
        f"{PACKAGE}.offline": ["page/*"],
        f"{PACKAGE}.evaluation": ["page/*"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # Where `ros2 run` and launch files look. As console scripts, pip would put names as common
        # as `driver` on everybody's PATH.
        (f"lib/{PACKAGE}", glob("executables/*")),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.*")),
        (f"share/{PACKAGE}/config/starts", glob("config/starts/*")),
        (f"share/{PACKAGE}/config/suites", glob("config/suites/*")),
        *((f"share/{PACKAGE}/{folder}", glob(f"{folder}/*.msg")) for folder in DEFINITIONS),
    ],
    zip_safe=False,
    **({} if READS_PROJECT else REPEATED),
)
# colcon reads the distribution as literals, which setuptools's SpecifierSet is not.
for described in (distribution, distribution.metadata) if READS_PROJECT else ():
    described.python_requires = str(described.python_requires)
