"""The optima are exact: against brute force, and against cases worked by hand."""

import numpy as np
import pytest

from codesign.search import points
from codesign.search.draws import Draws
from codesign.studies.search_benchmark import problems


def _penalised(problem, x):
    return problem.value(x) - problem.sparsity_penalty * int(np.sum(x))


_SMALL = (
    *(problems.BinaryQuadratic(seed, 3.0, 6) for seed in range(3)),
    *(problems.IsingSparsification(seed, side) for seed in range(2) for side in (2, 3)),
    problems.IsingSparsification(5, 2, sparsity_penalty=3.0),
    *(problems.Contamination(seed, 8) for seed in range(3)),
    problems.Contamination(1, 7, sparsity_penalty=0.4),
    *(problems.PlantedQuadratic(seed, 11) for seed in range(5)),
)


@pytest.mark.parametrize("problem", _SMALL, ids=str)
def test_optimum_is_the_best_of_all_points(problem):
    every = points.all_points(problem.num_variables)
    best = max(_penalised(problem, x) for x in every)
    assert problem.optimum == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_problems_of_the_catalogue(name):
    problem = problems.PROBLEMS[name](3)
    x = Draws("test", 0).bits(20, problem.num_variables)
    values = [_penalised(problem, row) for row in x]
    again, other = problems.PROBLEMS[name](3), problems.PROBLEMS[name](4)
    assert values == [_penalised(again, row) for row in x]
    assert values != [_penalised(other, row) for row in x]
    assert max(values) <= problem.optimum + 1e-9


def test_ising_against_sums_over_states():
    problem = problems.IsingSparsification(2, side=2)
    j = np.zeros((4, 4))  # spins 0 1 / 2 3; the edges are 01, 02, 13, 23
    for (a, b), coupling in zip(
        ((0, 1), (0, 2), (1, 3), (2, 3)), problem.couplings, strict=True
    ):
        j[a, b] = j[b, a] = coupling
    x = np.array([1, 0, 0, 1])
    kept = j * np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    z = 1 - 2 * points.all_points(4)
    p, q = (np.exp(np.einsum("si,ij,sj->s", z, m, z)) for m in (j, kept))
    p, q = p / p.sum(), q / q.sum()
    assert problem.value(x) == pytest.approx(-np.sum(p * np.log(p / q)))


@pytest.mark.parametrize("seed", range(3))
def test_kl_is_least_at_the_full_graph(seed):
    problem = problems.IsingSparsification(seed)
    assert problem.num_variables == 24
    assert problem.value(np.ones(24, np.int8)) == 0
    for x in Draws("masks", seed).bits(20, 24):
        assert problem.value(x) <= 1e-9
    assert np.all(np.abs(problem.couplings) >= 0.05)
    assert np.all(np.abs(problem.couplings) <= 5)


def test_contamination_of_two_stages():
    # Two scenarios that begin at 0.05 and 0.5. Prevented at stage 1 by 0.9 and 0.5:
    # 0.005 and 0.25, one of two above 0.1. Then growth by 0.2 of what is clean: 0.204
    # and 0.4, both above. Cost: 1 for prevention, 1/2, 1.
    growth, restoration = np.full((2, 2), 0.2), np.array([[0.9, 0.5], [0.9, 0.5]])
    initial = np.array([0.05, 0.5])

    def cost(x):
        return problems.contamination_cost(
            np.array(x), initial, growth, restoration, limit=0.1
        )

    assert cost([1, 0]) == pytest.approx(2.5)
    # 0.24 and 0.6, then 0.024 and 0.3: 2/2, then 1 and 1/2.
    assert cost([0, 1]) == pytest.approx(2.5)
    assert cost([0, 0]) == pytest.approx(2.0)
    assert cost([1, 1]) == pytest.approx(2 + 0.5 + 0.5)


def test_planted_terms_are_few_and_within_their_range():
    for seed in range(5):
        main, pair = problems.PlantedQuadratic(seed, 20).effects
        assert np.count_nonzero(main) == 4
        assert np.count_nonzero(pair) == 2
        sizes = np.abs([*main[main != 0], *pair[pair != 0]])
        assert np.all((sizes >= 0.02) & (sizes <= 0.08))


def test_quadratic_decays_with_distance():
    # exp(-(3 / 1)^2) = 1.2e-4 of a normal draw, three places from the diagonal.
    matrices = [problems.BinaryQuadratic(s, 1.0, 4).quadratic for s in range(200)]
    spread = np.std(matrices, axis=0)
    np.testing.assert_allclose(np.diag(spread), 1, atol=0.2)
    np.testing.assert_allclose(spread[0, 3], np.exp(-9), rtol=0.2)


def test_draws():
    draws = Draws("a", 0)
    assert Draws("a", 0).uniform(3).tolist() == Draws("a", 0).uniform(3).tolist()
    assert Draws("a", 0).uniform(3).tolist() != Draws("b", 0).uniform(3).tolist()
    assert sorted(draws.permutation(9)) == list(range(9))
    assert {draws.below(3) for _ in range(50)} == {0, 1, 2}
    normal = draws.normal(20_000)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    # The mean of Beta(1, b) is 1 / (1 + b).
    assert abs(draws.beta(3.0, 20_000).mean() - 0.25) < 0.01
