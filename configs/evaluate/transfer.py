"""Transfer: one task on many data sets, for the backbone and its untrained twin, as a table and a figure.

Every set is ordinary classification with all its labels: fitted on one split, tested on another. Images are resized to
the backbone's size. The task is logistic regression on frozen features, with the regulariser chosen on a fifth of each
fitting split; --config.task.by=... takes the fields of another task.

The twin is the same network before training, with batch statistics of the set on which it is judged. Its score shows
what the architecture achieves by itself. Missing sets are named and refused before any work; with
--config.task.missing=skip they are left out, and the table says so. Features are cached, so a second task is quick.

  :small         (default) seven sets with 10 to 242 classes: cifar10 and mnist as TFDS has them, and small sets in the
                 same format, dtd10, gtsrb, cub100, omniglot8, imagenette96 (--config.data.dir=FOLDER). It takes three
                 and a half minutes of processor time for a ResNet-18 of width 16 at 32 pixels. The frames of a sign in
                 gtsrb are not independent, but the interval counts them one by one and is too narrow
  :meta_dataset  the sets of Meta-Dataset (Triantafillou et al. 2020), to which Wu et al. 2021 transfer: by TFDS's names
                 where TFDS has them, otherwise folders in data.dir laid out as <split>/<class>/<image>. These are not
                 the few-shot episodes of that benchmark. The paper doesn't say which boxes and crops it used, so expect
                 other scores. A comment below says what each set is here
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown

PAPER = "Wu et al. 2021"
TIME = "4 minutes"  # three and a half of processor time
LOGISTIC = dict(
    kind="linear",
    solver="lbfgs",
    iterations=1000,
    tolerance=1e-5,
    standardise=True,
    l2=(1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4),
    validation=0.2,
)
SETS = {
    "small": (
        dict(name="cifar10", classes=10),
        dict(name="mnist", classes=10),
        dict(name="dtd10", classes=10),
        dict(name="gtsrb", classes=30),
        dict(name="cub100", classes=100),
        dict(name="omniglot8", classes=242),
        dict(name="imagenette96", classes=10),
    ),
    "meta_dataset": (
        dict(name="imagenet2012", classes=1000, test_split="validation"),
        # Omniglot's characters: 15 of each one's 20 drawings to fit, 5 to test; TFDS splits by alphabet instead
        dict(name="folder:omniglot", classes=1623),
        dict(name="folder:aircraft", classes=100, split="trainval"),  # FGVC-Aircraft's variants, boxes cut out
        dict(name="caltech_birds2011", classes=200),  # CUB-200-2011, whole images
        dict(name="dtd", classes=47, split="train+validation"),  # the first of its ten partitions
        # no split of its own: nine tenths against one, 50 million drawings; take a part of it for a first look
        dict(name="quickdraw_bitmap", classes=345, split="train[:90%]", test_split="train[90%:]"),
        dict(name="folder:fungi", classes=1394, test_split="val"),  # FGVCx Fungi 2018
        dict(name="oxford_flowers102", classes=102, split="train+validation"),  # VGG Flower
        dict(
            name="folder:traffic_sign", classes=43
        ),  # GTSRB with its official test images: frames of a track go together
        dict(name="folder:mscoco", classes=80, test_split="val"),  # MSCOCO 2017, boxes cut out
    ),
}


def get_config(variant="small"):
    if variant not in SETS:
        raise unknown("variant of transfer", variant, SETS)
    return ConfigDict(
        dict(
            task=dict(kind="transfer", by=LOGISTIC, sets=SETS[variant], missing="refuse", twin=True),
            data=dict(dir=None),  # where the sets are; TFDS's own folder by default
            features=dict(layer="pooled", views=None, copies=1, keep=True),
            batch_size=256,  # of encoding; no score depends on it
            seed=0,
        )
    )
