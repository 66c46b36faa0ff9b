# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The one error of this package."""


class RoadMapError(ValueError):
    """A map cannot be used, or a route not be found; the message says why and what to do."""
