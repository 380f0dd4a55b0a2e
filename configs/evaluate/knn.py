"""Nearest neighbours among frozen features: nothing is fitted, so nothing can be tuned on the test split.

Each test image takes the vote of its k nearest fitting images by cosine, a neighbour weighing e^{cos / temperature}
(Wu et al. 2018; k 200, temperature .07). Images are resized and centre-cropped, never augmented.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            task=dict(kind="knn", k=200, temperature=0.07),
            # None: the backbone's own training set, its splits, options and label
            data=dict(
                name=None,
                dir=None,
                split=None,
                test_split=None,
                options=None,
                label=None,
                test_name=None,
                test_dir=None,
            ),
            features=dict(layer="pooled", views=None, copies=1, keep=True),
            batch_size=256,  # of encoding; no score depends on it
            seed=0,
        )
    )
