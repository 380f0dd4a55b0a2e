"""Detection: trains torchvision's R-CNNs with an FPN on the backbone, and scores their average precision.

Needs the extra [torch] (torch, torchvision, pycocotools). The data are in COCO's format, a folder or a zip
(--config.data.dir): annotations and images of a split to fit on and of one to test on. Average precision is measured
before the training (start) and after its last iteration (end). The same command continues a training that was stopped.

  :faster    (default) Faster R-CNN, boxes; the layout of COCO 2017 and Detectron2's 1x schedule (90,000 iterations of
             16 images)
  :mask      Mask R-CNN, boxes and masks; otherwise as :faster
  :keypoint  Keypoint R-CNN, boxes and keypoints of persons; otherwise as :faster

Each of them has two more variants. :faster_frozen keeps the backbone constant, as Wu et al. 2020 do in their transfer
to COCO. :faster_scratch trains all layers and their batch norms, as is usual from scratch (use it with --untrained).
Otherwise batch norms of the backbone are constants, as in torchvision's own detectors.

  :bccd         Faster R-CNN on blood cells (data.dir=bccd_cells.zip), for a ResNet-18 of width 16 with the small stem;
                20 minutes on 2 busy cores, AP50 rises from 0 to about 88 %
  :bccd_frozen  the same with a constant backbone and 300 iterations. Here the untrained twin falls far behind; where
                all layers are trained it doesn't
  :mask_mini, :keypoint_mini  a few steps at a small size, to see that everything runs (data.dir=coco_mini.zip)

If other programs use the machine, set OMP_NUM_THREADS=1. torch's threads wait for one another in busy loops, which took
three times the time of the work itself. :bccd and its twin can then run at the same time, on a core each.

For a data set of your own start from :bccd (annotations/instances_{train,test}.json, images/) and name its files.
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown

PAPER = "Wu et al. 2020"
PERSONS, OBJECTS = "person_keypoints", "instances"
ONE_X = dict(
    kind="detection",
    model="faster",  # or mask, keypoint
    trainable_layers=3,  # of stem and four stages, from the last: 0 none, 5 all
    norm="frozen",  # of the trained layers' batch norms; or batch
    head_norm=None,  # in FPN and heads: batch, group (the box head then has 4 convolutions)
    levels=None,  # stages under the FPN: all; of the small stem 2 to 4
    channels=256,
    hidden=1024,
    anchor=8.0,  # their side in strides
    proposals=1000,
    samples=512,
    sizes=(640, 672, 704, 736, 768, 800),  # short sides, the last one in testing
    max_size=1333,
    flip=True,
    iterations=90_000,
    batch_size=16,
    lr=0.02,
    steps=(60_000, 80_000),
    gamma=0.1,
    warmup=1000,
    warmup_factor=0.001,
    momentum=0.9,
    weight_decay=1e-4,
    measure_every=0,
    save_every=1000,
    time_limit=None,  # in seconds; it then saves and stops with exit code 75
    pictures=6,
    device=None,
)
SMALL = dict(
    trainable_layers=5,
    channels=64,
    hidden=256,
    proposals=300,
    samples=128,
    sizes=(120,),
    max_size=320,
    batch_size=4,
)
HOW = {
    "": {},
    "_frozen": dict(trainable_layers=0),
    "_scratch": dict(trainable_layers=5, norm="batch", head_norm="batch"),
}


def coco(kind):
    return dict(
        dir=None,
        fit=f"annotations/{kind}_train2017.json",
        test=f"annotations/{kind}_val2017.json",
        fit_images="train2017",
        test_images="val2017",
        sigmas=None,
    )


def variants():
    found = {}
    for model, kind in (("faster", OBJECTS), ("mask", OBJECTS), ("keypoint", PERSONS)):
        for word, how in HOW.items():
            found[model + word] = dict(model=model) | how, coco(kind)
        mini = dict(model=model, lr=0.01, iterations=20, steps=(15,), warmup=5, pictures=4)
        found[f"{model}_mini"] = SMALL | mini, coco(kind)
    found["bccd"] = (
        SMALL
        | dict(norm="batch", lr=0.02, iterations=600, steps=(450, 550), warmup=50, measure_every=200, save_every=50),
        dict(
            dir=None,
            fit="annotations/instances_train.json",
            test="annotations/instances_test.json",
            fit_images="images",
            test_images="images",
            sigmas=None,
        ),
    )
    task, data = found["bccd"]
    found["bccd_frozen"] = task | dict(trainable_layers=0, iterations=300, steps=(225, 275), measure_every=100), data
    return found


def get_config(variant="faster"):
    table = variants()
    if variant not in table:
        raise unknown("variant of detection", variant, table)
    task, data = table[variant]
    return ConfigDict(dict(task=ONE_X | task, data=data, batch_size=4, seed=0))
