"""Accuracies that CAMEL prints of duplex networks: Tables III, IV and VIII, Fig. 17."""

from collections.abc import Iterator

from codesign.studies.camel.duplex_result import Runs, mean_test, name_of, of_variant
from codesign.studies.camel.duplex_settings import PairConfig
from codesign.studies.published import Published

# Percent of DuDNN, FI, CA and BO.
TABLE_III = {
    "cifar10": {
        "branch4-resnet18": (87.08, 87.20, 78.33, 55.32),
        "branch5-resnet34": (88.81, 88.83, 79.89, 57.80),
        "branch6-resnet50": (89.22, 89.33, 81.14, 61.62),
        "branch6-vit12": (89.03, 89.11, 80.98, 60.98),
        "branch6-vgg16": (89.15, 89.13, 80.99, 61.60),
        "branch8-vit16": (91.45, 91.59, 81.83, 62.18),
        "branch12-resnet50": (92.03, 92.12, 82.24, 63.45),
        "branch12-vit16": (92.14, 92.28, 82.08, 63.26),
    },
    "tiny_imagenet": {
        "branch4-resnet18": (62.12, 62.56, 58.80, 34.30),
        "branch5-resnet34": (64.82, 65.39, 59.49, 36.55),
        "branch6-resnet50": (65.67, 66.34, 61.06, 38.56),
        "branch6-vit12": (65.97, 66.30, 61.42, 38.60),
        "branch6-vgg16": (66.30, 66.78, 62.05, 38.49),
        "branch8-vit16": (66.76, 66.93, 62.88, 40.42),
        "branch12-resnet50": (68.48, 68.72, 64.11, 42.66),
        "branch12-vit16": (68.20, 68.59, 63.97, 42.88),
    },
}
# Of DuDNN, FI and CA; of STS-B a correlation.
TABLE_IV = {
    "mrpc": (0.822, 0.83, 0.787),
    "wnli": (0.606, 0.608, 0.534),
    "rte": (0.678, 0.669, 0.612),
    "stsb": (0.879, 0.889, 0.768),
    "qnli": (0.903, 0.909, 0.845),
    "sst2": (0.919, 0.921, 0.868),
    "qqp": (0.911, 0.911, 0.870),
}
# Percent of FI without a refresh.
TABLE_VIII = {
    "cifar10": {
        "branch4-resnet18": 23.23,
        "branch6-resnet50": 16.67,
        "branch8-vit16": 12.03,
        "branch12-vit16": 10.05,
    },
    "tiny_imagenet": {
        "branch4-resnet18": 1.5,
        "branch6-resnet50": 0.88,
        "branch8-vit16": 0.5,
        "branch12-vit16": 0.5,
    },
}
_ALGORITHMS = ("duplex", "irreversible", "chain", "branch_only")


def printed(config: PairConfig, pair: str, variant: str) -> tuple[float, str] | None:
    """What the paper prints, as a fraction of 1, and where; None if it does not."""
    if variant == "irreversible+unrefreshed":
        value = TABLE_VIII.get(config.dataset, {}).get(pair)
        return None if value is None else (value / 100, "Table VIII")
    if variant not in _ALGORITHMS:
        return None
    place = _ALGORITHMS.index(variant)
    if pair == "branch6-bert12":
        values = TABLE_IV.get(config.dataset, ())
        return (values[place], "Table IV") if place < len(values) else None
    row = TABLE_III.get(config.dataset, {}).get(pair)
    return None if row is None else (row[place] / 100, "Table III")


def rows(config: PairConfig) -> Iterator[Published[Runs]]:
    """Every accuracy of the settings, with the printed one where there is one."""
    for pair in config.pairs:
        for variant in config.variants:

            def ours(found: Runs, pair: str = pair, variant: str = variant):
                return mean_test(of_variant(found, pair, variant))

            value, source = printed(config, pair, variant) or (None, "")
            yield Published(
                name="accuracy",
                of={"pair": pair, "variant": variant},
                ours=ours,
                value=value,
                source=source and f"CAMEL, {source}",
                unit="ratio",
                title=f"{pair}, {name_of(variant)}",
                note=_SIZES.get(source, _IMAGES) if value is not None else "",
                missing="all runs diverged",
            )


_IMAGES = (
    "the paper: full width, backbones from ImageNet or all of CIFAR-100; here what the "
    "settings say"
)
_SIZES = {
    "Table IV": "the paper: BERT-base as its authors trained it; here what the settings say"
}
