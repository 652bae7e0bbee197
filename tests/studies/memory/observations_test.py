"""The observations as checks: each holds on numbers that show it, and fails on others."""

from absl.testing import absltest, parameterized

from codesign.studies.memory import observations
from tests.studies.memory import results

_MB = [24, 128, 400, 500, 1000]


def _sweep(network, time, fast, hbm, traffic, type_ii, frequency, small, large):
    """Times on the base, the fast and the HBM machine at `_MB`."""
    kinds = [True] + [False] * (len(frequency) - 1)
    return results.sweep(
        network,
        largest_step_mb=500.0,
        paper=results.curves(
            _MB, [time, fast, hbm, hbm], traffic, [type_ii, fast, hbm, hbm]
        ),
        layers=results.layers(frequency, kinds),
        batches=results.batches(small, large),
        reuse=results.reuse(
            [[0, 0, 0, 0], [39, 38, 80, 0], [40, 40, 100, 5]], [40, 40, 100, 90]
        ),
    )


def _paper_like():
    """Four networks that behave as the paper says."""
    heavy = dict(
        time=[10, 7, 5, 5, 4.9],
        fast=[8, 5, 3, 3, 2.95],
        hbm=[7, 6, 4.9, 4.9, 4.8],
        traffic=[100, 33, 31, 30, 25],
        type_ii=[4, 2, 0.1, 0.1, 0.1],
        frequency=[0.1, 50, 60],
        small=[100, 95, 90],
        large=[200, 190, 150],
    )
    light = {
        **heavy,
        "time": [10, 6, 3.2, 3, 2],
        "fast": [9.5, 5.7, 3, 2.8, 1.8],
        "hbm": [5, 3, 1.7, 1.6, 1.1],
        "frequency": [0.1, 5, 60],
    }
    recurrent = {
        **heavy,
        "time": [20, 8, 4, 3.9, 3.9],
        "fast": [19, 7, 2.4, 2.3, 2.3],
        "hbm": [9, 5, 3.9, 3.8, 3.8],
        "traffic": [100, 50, 5, 4, 4],
        "frequency": [0.02, 5, 8],
        "small": [10, 40, 100],
        "large": [300, 310, 290],
    }
    return {
        "resnet50": heavy,
        "mobilenetv2": light,
        "gnmt": recurrent,
        "transformer": heavy,
    }


def _check(numbers):
    made = [_sweep(name, **fields) for name, fields in numbers.items()]
    return {each.number: each for each in observations.check_all(made)}


class ObservationsTest(parameterized.TestCase):
    def test_all_hold_where_numbers_are_as_the_paper_has_them(self):
        found = _check(_paper_like())
        self.assertEqual(sorted(found), list(range(1, 15)))
        wrong = {n: each.evidence for n, each in found.items() if not each.holds}
        self.assertEmpty(wrong)
        self.assertEqual({each.verdict for each in found.values()}, {"holds"})

    @parameterized.parameters(
        (1, "mobilenetv2", "frequency", [1, 5, 60]),
        (2, "resnet50", "frequency", [0.1, 5, 6]),
        (2, "gnmt", "frequency", [0.1, 50, 80]),
        (3, "transformer", "traffic", [100, 90, 31, 30, 25]),
        (4, "gnmt", "traffic", [100, 50, 45, 40, 30]),
        (5, "resnet50", "fast", [6, 5, 3, 3, 2.95]),
        (6, "gnmt", "time", [20, 8, 4, 3.9, 3.0]),
        (7, "mobilenetv2", "time", [10, 6, 3.2, 3, 3]),
        (8, "transformer", "time", [50, 7, 5, 5, 4.9]),
        (9, "gnmt", "fast", [15, 7, 2.4, 2.3, 2.3]),
        (10, "resnet50", "hbm", [7, 6, 4, 4, 3]),
        (11, "mobilenetv2", "hbm", [5, 3, 3, 3, 2]),
        (12, "transformer", "type_ii", [0.5, 0.1, 0.1, 0.1, 0.1]),
        (13, "resnet50", "type_ii", [4, 4, 4, 4, 4]),
        (14, "transformer", "small", [100, 150, 200]),
        (14, "gnmt", "large", [300, 310, 320]),
    )
    def test_each_fails_where_numbers_contradict_it(self, number, network, key, values):
        numbers = _paper_like()
        numbers[network] = {**numbers[network], key: values}
        found = _check(numbers)[number]
        self.assertIs(found.holds, False)
        self.assertEqual(found.verdict, "does not hold")

    def test_says_which_networks_are_missing(self):
        found = {
            each.number: each
            for each in observations.check_all([results.sweep("vgg11")])
        }
        self.assertEqual({each.holds for each in found.values()}, {None})
        self.assertEqual(found[7].evidence, "needs MobileNetV2 at the paper's batch")
        self.assertEqual(found[7].verdict, "not run")
        self.assertEqual(found[8].evidence.count("and"), 3)  # four networks
        self.assertEqual(
            (found[7].quantity.value, found[7].quantity.paper), (None,) * 2
        )

    def test_keras_goes_before_ours(self):
        numbers = _paper_like()
        ours = _sweep("mobilenetv2", **numbers["mobilenetv2"])
        theirs = _sweep(
            "keras:MobileNetV2",
            **{**numbers["mobilenetv2"], "time": [10, 6, 3.2, 3, 3.2]},
        )
        for order in ([ours, theirs], [theirs, ours]):
            found = observations.check_all(order)[6]
            self.assertIs(found.holds, False)  # theirs saves nothing from 400 MB on


if __name__ == "__main__":
    absltest.main()
