"""Diagnostics: describes a backbone's features on images of the test split; no classifier is fitted.

  geometry     alignment of two views of each image (0 if their features are equal), uniformity (smaller means more even
               on the sphere), and the effective rank of the images' features
  information  mutual information between the two views, in nats, by InfoNCE, NWJ, SMILE and nearest neighbours, with
               their ceilings. The critic is fixed: its two numbers are fitted on other images
  invariance   for each op, applied alone: the cosine between an image before and after it, and the rank of the image
               among all images
  a picture    test images and their nearest neighbours, with a green frame if they are of the same class

task.views names the augmentation of the two views: 'train' for the backbone's own, or the name of a policy. Geometry
and nats depend on the views, so compare backbones by the same policy, not by each one's own.
"""

from mi_contrast.evaluation.task_config import make_config


def get_config():
    return make_config(
        dict(kind="diagnostics", images=1024, views="train", queries=8, neighbours=8, strength="simclr"), features=False
    )
