# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""ament_python and pip package of td3_driver."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "td3_driver"
# For bags that do not hold the definitions of their messages.
DEFINITIONS = glob("interfaces/*/msg")

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
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
    # What rosdep cannot install (see package.xml); the versions that are tested together are in
    # constraints.txt.
    install_requires=[
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
    # `td3-driver export` needs all three, driving with what it writes onnxruntime alone.
    extras_require={"onnx": ["onnx", "onnxruntime", "onnxscript"]},
    python_requires=">=3.10,<3.13",
    zip_safe=False,
    license="Apache-2.0",
    description="TD3 that learns to drive from camera images, through the CARLA ROS bridge.",
    maintainer="td3_driver authors",
    maintainer_email="maintainers@td3-driver.example",
    entry_points={
        "console_scripts": ["td3-driver = td3_driver.cli:main"],
    },
)
