from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import bipartite_matching

NAN, INF = np.nan, np.inf
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1e-40, -1e-40, 3e38]


def f32(x):
    return np.array(x, np.float32)


def check(run, data, *args, **options):
    """The backend gives the bits of the reference."""
    want = bipartite_matching(data, *args, **options, backend="numpy")
    for got, expected in zip(run(bipartite_matching, data, *args, **options), want):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.float32


class TestByHand:
    SCORES = f32([[0.5, 0.6], [0.1, 0.2], [0.3, 0.4]])

    @pytest.mark.parametrize(
        ("options", "columns", "rows"),
        [
            # 0.6 matches row 0 and column 1; the best of the other rows and column 0 is 0.3.
            ({"threshold": 0}, [1, -1, 0], [2, 0]),
            ({"threshold": 0.25}, [1, -1, 0], [2, 0]),
            # 0.3 is not above 0.3.
            ({"threshold": 0.3}, [1, -1, -1], [-1, 0]),
            ({"threshold": 0.6}, [-1, -1, -1], [-1, -1]),
            ({"threshold": -INF}, [1, -1, 0], [2, 0]),
            ({"threshold": INF}, [-1, -1, -1], [-1, -1]),
            # 0.1 matches row 1 and column 0; the lowest of the other rows and column 1 is 0.4.
            ({"threshold": 1, "is_ascend": True}, [-1, 0, 1], [1, 2]),
            ({"threshold": 0.4, "is_ascend": True}, [-1, 0, -1], [1, -1]),
            ({"threshold": 0.1, "is_ascend": True}, [-1, -1, -1], [-1, -1]),
        ],
    )
    def test_best_pairs_beyond_the_threshold_are_matched(self, run, options, columns, rows):
        got = run(bipartite_matching, self.SCORES, **options)
        np.testing.assert_array_equal(got[0], columns)
        np.testing.assert_array_equal(got[1], rows)

    @pytest.mark.parametrize(
        ("topk", "matched"), [(-1, 3), (0, 3), (1, 2), (2, 3), (3, 3), (2**31 - 1, 3)]
    )
    def test_positive_topk_matches_one_pair_more(self, run, topk, matched):
        columns, rows = run(bipartite_matching, np.diag(f32([1, 3, 2])), threshold=0, topk=topk)
        want = np.where(np.arange(3)[[2, 0, 1]] < matched, [0, 1, 2], -1)
        np.testing.assert_array_equal(columns, want)
        np.testing.assert_array_equal(rows, want)

    @pytest.mark.parametrize("is_ascend", [False, True])
    def test_equal_scores_are_matched_in_index_order(self, run, is_ascend):
        scores = f32([[0.0, -0.0], [-0.0, 0.0], [0.0, 0.0]])
        columns, rows = run(bipartite_matching, scores, is_ascend, 1 if is_ascend else -1)
        np.testing.assert_array_equal(columns, [0, 1, -1])
        np.testing.assert_array_equal(rows, [0, 1])

    def test_lower_row_precedes_lower_column_among_equal_scores(self, run):
        columns, rows = run(bipartite_matching, f32([[0, 0, 1], [1, 0, 0]]), threshold=0)
        np.testing.assert_array_equal(columns, [2, 0])
        np.testing.assert_array_equal(rows, [1, -1, 0])
        columns, _ = run(bipartite_matching, f32([[0, 0, 1], [1, 0, 1]]), threshold=0, topk=1)
        np.testing.assert_array_equal(columns, [2, 0])

    def test_nan_is_never_matched(self, run):
        columns, rows = run(bipartite_matching, f32([[NAN, 0.6], [0.7, 0.2]]), threshold=0)
        np.testing.assert_array_equal(columns, [1, 0])
        np.testing.assert_array_equal(rows, [1, 0])
        columns, rows = run(bipartite_matching, f32([[NAN, NAN], [0.7, NAN]]), True, 1)
        np.testing.assert_array_equal(columns, [-1, 0])
        np.testing.assert_array_equal(rows, [1, -1])

    def test_infinite_scores_are_the_best_and_the_worst(self, run):
        columns, _ = run(bipartite_matching, f32([[3e38, INF], [1, -INF]]), threshold=-INF)
        np.testing.assert_array_equal(columns, [1, 0])
        columns, _ = run(bipartite_matching, f32([[-3e38, -INF], [INF, 1]]), True, INF)
        np.testing.assert_array_equal(columns, [1, -1])

    def test_each_matrix_has_its_own_matching(self, run):
        # The example of MXNet's documentation, then its negative.
        scores = f32([[[[0.5, 0.6], [0.1, 0.2], [0.3, 0.4]]]])
        columns, rows = run(bipartite_matching, np.concatenate([scores, -scores]), threshold=-1)
        np.testing.assert_array_equal(columns, [[[1, -1, 0]], [[-1, 0, 1]]])
        np.testing.assert_array_equal(rows, [[[2, 0]], [[1, 2]]])


def random_scores(rng, *shape, ties=False, special=0.0):
    scores = rng.normal(size=shape)
    scores = np.round(scores) if ties else scores
    scores[rng.random(shape) < special] = rng.choice(SPECIAL)
    return f32(scores)


def chain(num):
    """Scores that rise with the row and the column: each match removes the best of all rows."""
    return f32(np.arange(num)[:, None] + np.arange(num))


SHAPES = [(1, 1), (1, 40), (40, 1), (7, 9), (300, 8), (8, 300), (70, 70), (3, 50, 20), (20, 5, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_ascend", [False, True])
def test_backend_gives_the_bits_of_the_reference(run_any_steps, shape, is_ascend):
    rng = np.random.default_rng(shape)
    for ties, special in ((False, 0.0), (True, 0.0), (True, 0.1)):
        data = random_scores(rng, *shape, ties=ties, special=special)
        for threshold in (-INF, -0.5, 0, 1, INF):
            check(run_any_steps, data, is_ascend, threshold, int(rng.integers(-1, 9)))


@pytest.mark.parametrize("is_ascend", [False, True])
def test_chain_of_conflicts_is_resolved_in_order(run_any_steps, is_ascend):
    for scores in (chain(40), -chain(40), np.zeros((40, 40), np.float32)):
        check(run_any_steps, scores, is_ascend, 100 if is_ascend else -100)
        check(run_any_steps, scores, is_ascend, 100 if is_ascend else -100, 17)


def conflicts(rng, rows, columns):
    """Yield scores where many rows or columns prefer the same ones."""
    scores, ties = f32(rng.random((rows, columns))), f32(rng.integers(0, 3, (rows, columns)))
    rank = np.where(np.arange(columns) % 2, 1, -1) * np.arange(rows)[:, None] / rows
    for data in (scores, ties):
        yield from (data[:1] + 0 * data, data[:, :1] + 0 * data, data[:1] + data[:, :1])
        yield data[:1] + 1e-3 * data
    yield f32(rank - 2 * np.arange(columns))


@pytest.mark.parametrize(
    ("rows", "columns"), [(90, 90), (400, 40), (40, 400), (300, 6), (150, 80), (1, 9), (9, 1)]
)
@pytest.mark.parametrize("is_ascend", [False, True])
def test_rows_that_prefer_the_same_columns_are_matched_in_order(rows, columns, is_ascend):
    rng = np.random.default_rng(rows)
    run = runner("cpu", "native")
    for data in conflicts(rng, rows, columns):
        data[rng.random(data.shape) < 0.1] = NAN
        for topk in (-1, 1, columns // 2):
            for threshold in (INF if is_ascend else -INF, np.nanmedian(data)):
                check(run, data, is_ascend, threshold, topk)


def iou_like(rng, rows, columns):
    """Scores of which most are 0."""
    scores = rng.random((rows, columns))
    scores[rng.random(scores.shape) < 0.9] = 0
    return f32(scores)


@pytest.mark.parametrize(("rows", "columns"), [(2000, 30), (30, 2000), (700, 700)])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, rows, columns):
    rng = np.random.default_rng(rows)
    for data in (iou_like(rng, rows, columns), random_scores(rng, rows, columns, ties=True)):
        for is_ascend in (False, True):
            args = data, is_ascend, 1e-12 if not is_ascend else 0.5
            want = bipartite_matching(*args, backend="numpy")
            call = partial(bipartite_matching, *args, backend="native")
            for out in cpu_variants(call):
                for got, expected in zip(out, want):
                    np.testing.assert_array_equal(got, expected)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ties=st.booleans(),
    infinite=st.booleans(),
    threshold=st.sampled_from([-INF, -1, 0, 0.25, 1e-12, INF]),
    topk=st.integers(-1, 12),
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("is_ascend", [False, True])
def test_equals_mxnet(mx, backend, is_ascend, seed, ties, infinite, threshold, topk):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, [4, 4, 20, 20])[rng.integers(0, 3) :]
    data = random_scores(rng, *shape, ties=ties)
    if infinite:
        data[rng.random(shape) < 0.1] = INF
        data[rng.random(shape) < 0.1] = -INF
    theirs = mx.nd.contrib.bipartite_matching(
        mx.nd.array(data), is_ascend=is_ascend, threshold=threshold, topk=topk
    )
    ours = bipartite_matching(data, is_ascend, threshold, topk, backend=backend)
    for got, want in zip(ours, theirs):
        np.testing.assert_array_equal(got, want.asnumpy())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_matching_is_stable(seed):
    """No free or worse matched row and column prefer each other, and both results agree."""
    rng = np.random.default_rng(seed)
    data = random_scores(rng, *rng.integers(1, 30, 2), ties=bool(rng.integers(2)))
    columns, rows = (x.astype(int) for x in bipartite_matching(data, threshold=0, backend="native"))
    row_scores, column_scores = np.zeros(len(columns)), np.zeros(len(rows))
    for row, column in enumerate(columns):
        if column >= 0:
            assert rows[column] == row
            row_scores[row] = column_scores[column] = data[row, column]
    assert (columns >= 0).sum() == (rows >= 0).sum()
    assert (data <= np.maximum(row_scores[:, None], column_scores)).all()


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_threads_gives_the_same_matching(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data = random_scores(np.random.default_rng(4), 2, 60, 50, ties=True)
    check(runner("cpu", "emulated"), data, threshold=0)


def test_sanitized(run_sanitized_small):
    data = random_scores(np.random.default_rng(2), 2, 23, 31, ties=True, special=0.1)
    check(run_sanitized_small, data, threshold=-1, topk=9)
    check(run_sanitized_small, data, True, 1)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (2, 3, 0), (0, 2, 3)])
def test_matrices_without_pairs_match_nothing(run, shape):
    columns, rows = run(bipartite_matching, np.zeros(shape, np.float32), threshold=-1)
    np.testing.assert_array_equal(columns, np.full(shape[:-1], -1))
    np.testing.assert_array_equal(rows, np.full((*shape[:-2], shape[-1]), -1))


DATA = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": DATA[0]}, ValueError, r"data: expected shape \(\.\.\., N, M\), got \(2,\)"),
        ({"data": DATA.astype("f8")}, TypeError, "data: expected float32, got float64"),
        ({"data": DATA.tolist()}, TypeError, "data: expected an array .*, got list"),
        ({"threshold": None}, TypeError, "threshold: expected a number, got None"),
        ({"threshold": NAN}, ValueError, "threshold: expected a number, got nan"),
        ({"is_ascend": 2}, ValueError, "is_ascend: expected True or False, got 2"),
        ({"topk": 1.5}, TypeError, "topk: expected an integer, got 1.5"),
        ({"topk": 2**31}, ValueError, "topk: expected an integer in .*, got 2147483648"),
        (
            {"data": np.broadcast_to(np.float32(0), (2**14, 2**13))},
            ValueError,
            r"data: expected at most 134215680 pairs in a matrix, got \(16384, 8192\)",
        ),
        (
            {"data": np.broadcast_to(np.float32(0), (2**16, 2**15, 1, 1))},
            ValueError,
            r"data: expected sizes below 2\*\*31, got shape \(65536, 32768, 1, 1\)",
        ),
    ],
)
def test_bad_argument_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        bipartite_matching(**{"data": DATA, "threshold": 0.5, **change})
