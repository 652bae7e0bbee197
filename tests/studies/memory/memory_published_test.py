"""Published numbers beside ours, on sweeps made by hand."""

from absl.testing import absltest, parameterized

from codesign.studies.memory import memory_published as published
from codesign.studies.memory.capacity_measure import HBM
from codesign.studies.memory.capacity_result import NotRun
from tests.studies.memory import results


class KneeTest(absltest.TestCase):
    def test_first_capacity_that_holds_the_largest_step(self):
        # Steps need 294 MB: 296 is the first of 24, 296, 500 that has them.
        self.assertEqual(published.knee_mb(results.sweep()), 296)
        exact = results.sweep(largest_step_mb=296.0)
        self.assertEqual(published.knee_mb(exact), 296)
        more = results.sweep(largest_step_mb=296.01)
        self.assertEqual(published.knee_mb(more), 500)

    def test_not_run_if_no_capacity_does(self):
        for made in (results.sweep(largest_step_mb=501.0), results.sweep(paper=None)):
            with self.assertRaises(NotRun):
                published.knee_mb(made)

    def test_last_steep_step_of_a_curve(self):
        # Steps spare 40, 1, 5 and 2 of 100: the last of at least 3 leads to 8.
        curve = results.curves([2, 4, 6, 8, 10], 1.0, [100, 60, 59, 54, 52])
        self.assertEqual(published.last_drop_mb(curve), 8)
        self.assertEqual(published.last_drop_mb(curve, least=0.1), 4)
        self.assertIsNone(published.last_drop_mb(curve, least=0.5))


class RatiosTest(absltest.TestCase):
    def test_hand_worked(self):
        # Traffic 100, 30, 20; time 4, 3, 2 on the first machine, 2, 2, 1 on the second.
        times = [[4, 3, 2], [2, 2, 1], [4, 3, 2], [4, 3, 2]]
        swept = results.curves([24, 296, 500], times, [100, 30, 20], [[1, 1, 1]] * 4)
        found = results.sweep(paper=swept)
        self.assertAlmostEqual(published.traffic_drop(found, 24, 296), 0.7)
        self.assertAlmostEqual(published.time_drop(found, 24, 500), 0.5)
        self.assertEqual(published.speedup(found, 24), 2.0)
        self.assertEqual(published.speedup(found, 296), 1.5)
        self.assertAlmostEqual(published.speedup_bound(found), 1.7)
        self.assertEqual(published.type_ii_share(found, 24), 0.25)
        self.assertEqual(published.speedup(found, 24, HBM), 1.0)
        with self.assertRaises(NotRun):
            published.time_drop(found, 24, 400)
        with self.assertRaises(NotRun):
            published.speedup(found, 25)

    def test_captured_part_of_scopes(self):
        found = results.sweep(
            reuse=results.reuse(
                [[0, 0, 0, 0], [30, 10, 0, 0], [40, 20, 0, 9]], [40, 40, 0, 90]
            )
        )
        self.assertEqual(published.captured(found, 180, "adjacent", "block"), 0.5)
        self.assertEqual(published.captured(found, 500, "adjacent"), 1.0)
        with self.assertRaises(NotRun):  # there is none to capture
            published.captured(found, 180, "recurrent weight")
        with self.assertRaises(NotRun):
            published.captured(found, 600, "adjacent")
        self.assertEqual(published.needed_mb(found, "adjacent", "block"), 200)


class QuantitiesTest(parameterized.TestCase):
    def test_every_number_of_a_network_stands_with_ours(self):
        found = {q.key: q for q in published.quantities([results.sweep()])}
        knee = found["knee_mb[resnet50]"]
        self.assertEqual((knee.value, knee.paper, knee.kind), (296, 296, "derived"))
        self.assertEqual(knee.note, "")  # met: nothing to explain
        self.assertEqual((knee.title, knee.verdict), ("ResNet-50: knee", "equal"))
        drop = found["time_drop_24_to_500[resnet50]"]
        self.assertEqual((drop.value, drop.paper), (50.0, 48.1))
        self.assertIn("order of transfers", drop.note)  # off by more than a point
        self.assertLen(found, 8)

    def test_what_cannot_be_said_says_why(self):
        found = published.quantities([results.sweep(paper=None)])
        missing = [q for q in found if q.name == "knee_mb"]
        self.assertIsNone(missing[0].value)
        self.assertIn("not among the capacities", missing[0].note)

    @parameterized.parameters(
        ("resnet50", "derived"), ("transformer", "fitted"), ("gnmt", "assumed")
    )
    def test_kind_says_what_was_chosen(self, network, kind):
        found = published.quantities([results.sweep(network)])
        self.assertNotEmpty(found)
        self.assertEqual({q.kind for q in found}, {kind})

    def test_networks_of_others_have_no_published_numbers(self):
        self.assertEmpty(published.quantities([results.sweep("vgg11")]))
        self.assertNotEmpty(published.quantities([results.sweep("keras:ResNet50")]))

    def test_another_batch_is_not_held_against_the_paper(self):
        self.assertEmpty(published.quantities([results.sweep(family="")]))


if __name__ == "__main__":
    absltest.main()
