import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from codesign import data
from codesign.data import Augmentation, folders
from tests import fuzzing


def _image(path, value, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size, size, 3), value, np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def _by_class(root, parts=("train", "val")):
    """Image i of class k is of brightness 100 k + i."""
    for part in parts:
        for k, name in enumerate(("ant", "bee")):
            for i in (2, 0, 1):
                _image(root / part / name / f"{i}.png", 100 * k + i)
    return root


def _tiny(root):
    """Two classes of three images each, one image of each to test on."""
    wnids = ("n2", "n1")
    for k, wnid in enumerate(wnids):
        for i in range(3):
            path = root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            _image(path, 100 * k + i)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("ignored")
        _image(root / "val" / "images" / f"val_{k}.JPEG", 100 * k + 50)
    (root / "wnids.txt").write_text("n2\nn1\n")
    (root / "words.txt").write_text("n1\tcrane, bird\nn2\tmug\nn3\tnowhere\n")
    lines = "val_1.JPEG\tn1\t0\t0\t9\t9\nval_0.JPEG\tn2\t1\t1\t2\t2\n"
    (root / "val" / "val_annotations.txt").write_text(lines)
    return root


def test_a_folder_for_each_class(tmp_path):
    train, test, names = folders.read_folder(_by_class(tmp_path), 8)
    assert names == ("ant", "bee")
    for split in (train, test):
        assert split.images.shape == (6, 8, 8, 3)
        assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
        assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_test_will_do_for_val_and_nothing_for_either(tmp_path):
    named = _by_class(tmp_path / "a", ("train", "test"))
    assert len(folders.read_folder(named, 8)[1]) == 6
    alone = _by_class(tmp_path / "b", ("train",))
    assert folders.read_folder(alone, 8)[1] is None
    (alone / "train" / "ant").rename(alone / "ant")
    (alone / "train" / "bee").rename(alone / "bee")
    (alone / "train").rmdir()
    (alone / "LICENCE").write_text("beside the classes")
    (alone / ".git").mkdir()
    train, test, names = folders.read_folder(alone, 8)
    assert (test, names) == (None, ("ant", "bee"))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_class_without_test_images_keeps_its_number(tmp_path):
    root = _by_class(tmp_path)
    for path in (root / "val" / "ant").iterdir():
        path.unlink()
    (root / "val" / "ant").rmdir()
    assert folders.read_folder(root, 8)[1].labels.tolist() == [1, 1, 1]


def test_tiny_imagenet(tmp_path):
    train, test, names = folders.read_folder(_tiny(tmp_path), 8)
    assert names == ("mug", "crane")  # in the order of wnids.txt
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [50, 150]
    assert test.labels.tolist() == [0, 1]
    (tmp_path / "words.txt").unlink()
    assert folders.list_folder(tmp_path).class_names == ("n2", "n1")


def test_load_by_path(tmp_path):
    root = _by_class(tmp_path / "mine")
    dataset = data.load(f"folder:{root}")
    assert dataset.train.images.shape == (5, 64, 64, 3)
    assert (len(dataset.validation), len(dataset.test)) == (1, 6)
    assert (dataset.num_classes, dataset.class_names) == (2, ("ant", "bee"))
    assert dataset.augmentation == Augmentation()
    relative = data.load("folder:mine", data_dir=tmp_path, image_size=32)
    assert relative.train.images.shape == (5, 32, 32, 3)
    with pytest.raises(ValueError, match=r"`image_size` \(=4\).*leave it out for 64"):
        data.load("folder:mine", data_dir=tmp_path, image_size=4)
    with pytest.raises(FileNotFoundError, match=r"gone' is not an existing folder"):
        data.load("folder:gone", data_dir=tmp_path)


def test_load_tiny_imagenet(tmp_path):
    _tiny(tmp_path / "tiny-imagenet-200")
    dataset = data.load("tiny_imagenet", data_dir=tmp_path)
    assert dataset.test.images.shape == (2, 64, 64, 3)
    assert dataset.augmentation == Augmentation(crop_padding=8, flip=True)
    with pytest.raises(FileNotFoundError, match="get it from http://cs231n.stanford"):
        data.load("tiny_imagenet", data_dir=tmp_path / "tiny-imagenet-200" / "train")


def _empty(root):
    (root / "train" / "cat").mkdir()


def _no_image(root):
    (root / "train" / "ant" / "notes.txt").write_text("notes")


def _nested(root):
    (root / "train" / "ant" / "more").mkdir()


def _unknown(root):
    (root / "val" / "cat").mkdir()


def _stray(root):
    (root / "val" / "labels.csv").write_text("")


def _link(root):
    outside = root.parent / "outside.png"
    _image(outside, 0)
    (root / "train" / "ant" / "link.png").symlink_to(outside)


def _class_link(root):
    (root.parent / "elsewhere").mkdir()
    (root / "train" / "cat").symlink_to(root.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_empty, r"train/cat is empty; put images"),
        (_no_image, r"ant/notes\.txt is no image that can be read"),
        (_nested, r"ant/more is a folder where an image was expected"),
        (_unknown, r"val/cat is of a class that has no folder to train on.*ant, bee"),
        (_stray, r"val/labels\.csv is no folder of a class"),
        (_link, r"ant/link\.png leads out of .*/outside\.png; put the file itself"),
        (_class_link, r"train/cat leads out of .*/elsewhere"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, damage, message):
    root = _by_class(tmp_path / "root")
    damage(root)
    with pytest.raises(ValueError, match=message):
        folders.read_folder(root, 8)


def test_fewer_than_two_classes(tmp_path):
    _image(tmp_path / "train" / "ant" / "0.png", 0)
    with pytest.raises(ValueError, match="train has 1 classes, but at least 2"):
        folders.list_folder(tmp_path)
    with pytest.raises(ValueError, match="has 0 classes"):
        folders.list_folder(tmp_path / "train" / "ant")


def test_links_inside_the_folder_are_followed(tmp_path):
    root = _by_class(tmp_path / "root")
    (root / "train" / "ant" / "3.png").symlink_to(root / "val" / "ant" / "0.png")
    (tmp_path / "link").symlink_to(root)  # to the folder itself, too
    train, _, _ = folders.read_folder(tmp_path / "link", 8)
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 100, 101, 102]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("wnids.txt", "n2\nn2\n", r"wnids\.txt, line 2: 'n2' is no new folder"),
        ("wnids.txt", "", r"wnids\.txt, line 1: '' is no new folder of"),
        ("wnids.txt", "n2\n../n1\n", r"wnids\.txt, line 2: '../n1' is no new"),
        ("wnids.txt", "n2\nn9\n", r"wnids\.txt, line 2: 'n9' is no new folder"),
        ("words.txt", "n1 crane\n", r"words\.txt, line 1: 'n1 crane' has no tab"),
        ("words.txt", b"n1\tcaf\xe9\n", r"words\.txt, line 1: not UTF-8"),
        (
            "val/val_annotations.txt",
            "val_0.JPEG n2\n",
            r"annotations\.txt, line 1: 'val",
        ),
        ("val/val_annotations.txt", "val_0.JPEG\tn3\n", r"line 1: .*one of the 2 clas"),
        ("val/val_annotations.txt", "val_0.JPEG\tn2\n", r"val_1\.JPEG has no line in"),
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn2\nval_0.JPEG\tn1\n",
            r"line 2: .* is not a new file",
        ),
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn2\nval_1.JPEG\tn1\n../../x\tn1\n",
            r"annotations\.txt, line 3: there is no '\.\./\.\./x' in .*val/images",
        ),
    ],
)
def test_lists_that_do_not_fit_are_named_with_the_line(
    tmp_path, file, content, message
):
    root = _tiny(tmp_path)
    data = content if isinstance(content, bytes) else content.encode()
    (root / file).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        folders.list_folder(root)


def test_missing_images_and_annotations(tmp_path):
    root = _tiny(tmp_path)
    (root / "train" / "n1" / "images").rename(root / "train" / "n1" / "gone")
    with pytest.raises(ValueError, match="n1/images is not a folder of images"):
        folders.list_folder(root)
    (root / "train" / "n1" / "gone").rename(root / "train" / "n1" / "images")
    (root / "val" / "val_annotations.txt").unlink()
    with pytest.raises(ValueError, match=r"val_annotations\.txt is missing"):
        folders.list_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_mutated_lists_are_refused_or_read(tmp_path, file):
    root = _tiny(tmp_path)

    def is_sound(listing):
        return len(listing.class_names) == 1 + max(n for _, n in listing.train)

    fuzzing.check(lambda _: folders.list_folder(root), root / file, accepts=is_sound)


@pytest.mark.slow
def test_real_tiny_imagenet():
    folder = pathlib.Path(os.environ.get("CODESIGN_DATA") or "/nonexistent")
    if not (folder / "tiny-imagenet-200").is_dir():
        pytest.skip("CODESIGN_DATA names no folder with tiny-imagenet-200")
    dataset = data.load("tiny_imagenet", image_size=32)
    classes = dataset.num_classes  # 200, or a subset
    assert len(dataset.train) == 450 * classes
    np.testing.assert_array_equal(np.bincount(dataset.validation.labels), 50)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), 50)
