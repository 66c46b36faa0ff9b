# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Draw docs/looks.png: the named looks, those held out last, each seen from the same place.

python tools/draw_looks.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Pose
from td3_driver.looks import HELD_OUT, NAMED
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box
from td3_driver.simulator.camera import Camera

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "looks.png"
MAP = "grid_old_town"
COLUMNS = 4
WIDTH_PX, HEIGHT_PX, TITLE_PX = 192, 124, 18
# Metres ahead of the car, and paint.
VEHICLES = ((14, (48.0, 44.0, 180.0)), (32, (215.0, 215.0, 215.0)))


def tile(camera: Camera, pose: Pose, boxes: list[Box], name: str) -> np.ndarray:
    """Return one look under its name, uint8 (height, width, 3)."""
    camera.wear(NAMED[name])  # type: ignore[index]
    image = camera.render(pose, boxes)[..., :3]
    title = np.full((TITLE_PX, WIDTH_PX, 3), 255, np.uint8)
    text = f"{name} (held out)" if name in HELD_OUT else name
    cv2.putText(
        title, text, (2, TITLE_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA
    )
    return np.vstack([title, image])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--start", type=int, default=2, help="seed of the place")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where to write it")
    options = parser.parse_args()
    road_map = RoadMap.load(MAP)
    config = SimulatorConfig(map=MAP, image_width_px=WIDTH_PX, image_height_px=HEIGHT_PX)
    pose, goal = road_map.random_start(np.random.default_rng(options.start), 60.0)
    route = road_map.route(pose, goal)
    boxes = [Box(Pose(*route[ahead]), 4.5, 1.85, 1.5, paint) for ahead, paint in VEHICLES]
    camera = Camera(road_map, config, next(iter(NAMED.values())))
    tiles = [tile(camera, pose, boxes, name) for name in NAMED]
    rows = [np.hstack(tiles[first : first + COLUMNS]) for first in range(0, len(tiles), COLUMNS)]
    # Noise does not compress: coarser colours, which nobody sees, keep the file small.
    picture = np.vstack(rows) // 6 * 6
    cv2.imwrite(str(options.out), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
