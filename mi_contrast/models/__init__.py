"""Networks: backbones with torchvision's and timm's names and numerics, heads, batch norm, representations."""
