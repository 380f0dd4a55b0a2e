"""Images in, views out: policies as plain data, random ops on the device, one key an example."""

from mi_contrast.views.policies import (
    Views,
    build,
    byol,
    check,
    cmc,
    infomin,
    moco_v1,
    moco_v2,
    moco_v3,
    normalise,
    pirl,
    plain,
    plain_channels,
    simclr,
    unnormalise,
)

__all__ = [
    "Views",
    "build",
    "byol",
    "check",
    "cmc",
    "infomin",
    "moco_v1",
    "moco_v2",
    "moco_v3",
    "normalise",
    "pirl",
    "plain",
    "plain_channels",
    "simclr",
    "unnormalise",
]
