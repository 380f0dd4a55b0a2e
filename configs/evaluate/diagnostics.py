"""Diagnostics: what a backbone's features are like, on images of the test split; nothing is fitted on labels.

  geometry     of two views an image: alignment (0 where both have the same features), uniformity (the smaller the more
               even on the sphere), and the effective rank of the images' features
  information  nats between the two views by InfoNCE, NWJ, SMILE and nearest neighbours, each with its ceiling, with a
               fixed critic of two numbers that come from other images
  invariance   one op at a time, always applied: the cosine of an image and itself changed, and how far down the list of
               all images its own stands
  a picture    test images and those nearest to them, framed green where of the same class

task.views names the augmentation of the two views: 'train' is the backbone's own, else a policy's name. Geometry and
nats belong to the views: compare backbones by one policy's name, not by each one's own.
"""

from mi_contrast.evaluation.asked import config_of


def get_config():
    return config_of(
        dict(kind="diagnostics", images=1024, views="train", queries=8, neighbours=8, strength="simclr"), features=False
    )
