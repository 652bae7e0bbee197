"""The handwritten digits that come with scikit-learn: 1,797 of 8x8 pixels."""

import numpy as np

from codesign.data.augment import Augmentation
from codesign.data.dataset import Split
from codesign.data.datasets import DataDir, Source, register


def read_splits(data_dir: DataDir = None) -> tuple[Split, None]:
    """Reads all digits, pixels of 0..16 scaled to 0..255; no test part is published."""
    del data_dir  # embedded in scikit-learn
    from sklearn.datasets import load_digits  # a second to import

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Split(images=images, labels=labels.astype(np.int32)), None


register(
    "digits",
    Source(
        read=read_splits,
        class_names=tuple("0123456789"),
        augmentation=Augmentation(crop_padding=2),
    ),
)
