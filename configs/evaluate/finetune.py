"""Fine-tuning: trains the whole network on the labels of one split and scores another split once, after the last epoch.

This is the only task that changes weights and batch statistics. The network is saved next to the result, as an export
that `mi_contrast.load` reads, and the head as .safetensors. Images are cropped and flipped anew at each step
(task.views); None leaves them as they are, which suits digits and signs. Test images are resized and centre-cropped.

  :sgd     (default) SGD, lr .01 falling to 0 along a cosine, momentum .9, weight decay 1e-4, ten times the rate for the
           head, batches of 128, 30 epochs
  :adamw   AdamW, lr 3e-4 falling to 0, weight decay .05
  :frozen  as :sgd, with the backbone's batch statistics throughout, for batches that are too small for their own

The rates are a start, not the recipe of a paper. Set --config.task.lr, and choose it on a part of the fitting split
(--config.data.split='train[:80%]' --config.data.test_split='train[80%:]').
"""

from mi_contrast.core import schedules
from mi_contrast.core.errors import unknown
from mi_contrast.evaluation.task_config import make_config

SGD = dict(
    kind="finetune",
    optimiser="sgd",
    lr=schedules.cosine(0.01, 0.0),
    head_factor=10.0,
    momentum=0.9,
    weight_decay=1e-4,
    epochs=30,
    batch_size=128,
    views="crops",
    statistics="batch",
)
TASKS = {
    "sgd": SGD,
    "adamw": dict(SGD, optimiser="adamw", lr=schedules.cosine(3e-4, 0.0), weight_decay=0.05),
    "frozen": dict(SGD, statistics="frozen"),
}


def get_config(variant="sgd"):
    if variant not in TASKS:
        raise unknown("variant of finetune", variant, TASKS)
    return make_config(TASKS[variant], features=False)
