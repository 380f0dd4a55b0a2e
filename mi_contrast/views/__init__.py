"""Images in, views out: policies as plain data, random ops on the device, one key an example."""

from mi_contrast.views.policies import Views, build, check, moco_v1, moco_v2, normalise, plain, simclr, unnormalise

__all__ = ["Views", "build", "check", "moco_v1", "moco_v2", "normalise", "plain", "simclr", "unnormalise"]
