# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What pyproject.toml cannot say: files for ament, and all of it again for old setuptools."""

from glob import glob

import setuptools

PACKAGE = "td3_driver"
# For bags that do not hold the definitions of their messages.
DEFINITIONS = glob("interfaces/*/msg")

# On Humble colcon builds with setuptools 59, which does not read [project] of pyproject.toml (61
# does). The facts belong there; test/test_package.py holds these equal to them.
REPEATED = {
    "name": PACKAGE,
    "version": "0.1.0",
    "python_requires": ">=3.10,<3.13",
    "install_requires": [
        "carla==0.9.16",
        "gymnasium>=1.0",
        "matplotlib",
        "mcap>=1.6",
        "networkx",
        "numpy>=1.26",
        "packaging",
        "pydantic>=2",
        "pyyaml",
        "rosbags>=0.11",
        "safetensors",
        "tensorboard",
        "torch>=2.5",
        "tqdm",
        "zstandard",
    ],
    "entry_points": {"console_scripts": ["td3-driver = td3_driver.startup:command_line"]},
}
READS_PROJECT = int(setuptools.__version__.split(".")[0]) >= 61

setuptools.setup(
    packages=setuptools.find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={
        PACKAGE: ["py.typed"],
        f"{PACKAGE}.roads": ["maps/*.xodr"],
        f"{PACKAGE}.offline": ["page/*"],
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
        *((f"share/{PACKAGE}/{folder}", glob(f"{folder}/*.msg")) for folder in DEFINITIONS),
    ],
    zip_safe=False,
    **({} if READS_PROJECT else REPEATED),
)
