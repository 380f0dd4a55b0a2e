"""Networks: backbones with torchvision's names and numerics, heads, batch norm, and the representation they make."""
