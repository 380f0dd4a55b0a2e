"""Which metrics of a run are drawn together, under which title, in which order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """How some metrics are drawn in one chart.

    Attributes:
      title: the heading.
      note: what the chart shows, in a sentence.
      names: metric -> its name in the legend; '' takes the title.
      unit: 'nats', '%' (values are shares) or nothing.
      ceiling: the metric that is drawn dashed, as the largest possible value.
      untrained: show the values at step 0 as dotted lines.
      reach: values that the axis must reach.
      logarithmic: use a logarithmic axis where the values span several powers of ten.
      between: shade between the first two curves.
    """

    title: str
    note: str
    names: dict[str, str]
    unit: str = ""
    ceiling: str | None = None
    untrained: bool = False
    reach: tuple[float, ...] = ()
    logarithmic: bool = False
    between: bool = False


SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "What the representation holds",
        (
            Panel(
                "Mutual information",
                "InfoNCE on held-out pairs, a lower bound on what two views share. It is not the training objective.",
                {"mi_nats": "mi_nats"},
                "nats",
                ceiling="mi_ceiling",
                reach=(0.0,),
            ),
            Panel(
                "Accuracy",
                "Top-1 on the held-out part of the training split, never on the test split.",
                {"knn_top1": "kNN", "probe_top1": "linear probe"},
                "%",
                untrained=True,
            ),
        ),
    ),
    (
        "The training objective",
        (
            Panel(
                "Training objective",
                "What training maximises, on training batches. Its ceiling changes with the size of the support.",
                {"objective": "objective"},
                "nats",
                ceiling="objective_ceiling",
                reach=(0.0,),
            ),
            Panel(
                "Support",
                "The percentiles of similarity between which candidates serve as negatives; 100 is the most similar.",
                {"lower": "from", "upper": "up to"},
                "%",
                reach=(0.0, 1.0),
                between=True,
            ),
            Panel(
                "Anchors whose bound holds",
                "Share of anchors whose mean exp(score) over the support is at least that over the whole pool.",
                {"bound_share": "anchors"},
                "%",
                reach=(0.0, 1.0),
            ),
            Panel(
                "Bound gap",
                "Mean over anchors of log mean exp(score), support minus pool. Below 0 the objective is no bound.",
                {"bound_gap": "gap"},
                "nats",
                reach=(0.0,),
            ),
        ),
    ),
    (
        "Inside the support",
        (
            Panel(
                "Same class or instance",
                "False negatives: the share of negatives with the anchor's label, and of the same instance.",
                {"same_class": "same class", "same_instance": "same instance"},
                "%",
                reach=(0.0,),
            ),
            Panel(
                "Support size", "Number of candidates inside the support.", {"support_size": "candidates"}, reach=(0.0,)
            ),
            Panel(
                "Queue fill",
                "Share of the queue's rows that hold a key.",
                {"queue_fill": "filled"},
                "%",
                reach=(0.0, 1.0),
            ),
        ),
    ),
    (
        "Geometry of the embedding",
        (
            Panel(
                "Alignment",
                "Mean squared distance between the two views of a pair, 0 to 4. Smaller is closer.",
                {"alignment": ""},
            ),
            Panel(
                "Uniformity",
                "Log mean exp(-2 distance²), -8 to 0. Smaller means that embeddings cover the sphere better.",
                {"uniformity": ""},
            ),
            Panel(
                "Effective rank",
                "Number of directions in use: the exponential of the entropy of the singular values.",
                {"effective_rank": ""},
            ),
        ),
    ),
    (
        "The machine",
        (
            Panel("Learning rate", "Of the optimiser.", {"lr": ""}, reach=(0.0,)),
            Panel("Temperature", "Of the first term.", {"temperature": ""}),
            Panel("Speed", "Training images per second.", {"images_per_second": "images/s"}, reach=(0.0,)),
            Panel("Target momentum", "Of the moving average that makes the target network.", {"momentum": ""}),
            Panel("Weight", "Of the first term in the loss.", {"weight": ""}),
            Panel("Probe loss", "Cross-entropy of the online probe.", {"probe_loss": ""}, "nats", reach=(0.0,)),
            Panel("Gradient norm", "Global norm before clipping.", {"grad_norm": ""}, logarithmic=True),
            Panel(
                "Bad steps",
                "Number of steps in a row whose loss or gradient was not finite.",
                {"bad_steps": ""},
                reach=(0.0,),
            ),
        ),
    ),
)
