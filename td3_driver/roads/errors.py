# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The one error of this package."""


class RoadMapError(ValueError):
    """A map is unusable or a route cannot be found; the message says why and what to do."""
