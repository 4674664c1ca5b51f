import math
import warnings

import numpy as np
import pytest

from aimodels.logistic import softmax
from aimodels.metrics import (
    average_precision,
    bits_per_byte,
    bleu,
    bootstrap,
    brier,
    brier_parts,
    calibration_error,
    confusion,
    fit_temperature,
    log_loss,
    perplexity,
    precision_recall,
    precision_recall_f1,
    reliability,
    roc,
    roc_auc,
    wilson,
)

metrics = pytest.importorskip("sklearn.metrics")
sacrebleu = pytest.importorskip("sacrebleu")
stats = pytest.importorskip("scipy.stats")

NAN = float("nan")
SIZES = [1, 2, 3, 10, 57, 1000]


def rng(seed=0):
    return np.random.default_rng(seed)


def labels(size, classes, seed=0):
    return rng(seed).integers(0, classes, size)


def ranked(size, seed, ties):
    """Labels with both classes, and scores, which repeat if ties is True."""
    y = np.append([0, 1], labels(size, 2, seed))
    scores = rng(seed + 1).normal(size=size + 2) + y
    return y, scores.round(0 if ties else 9)


def quiet(call, *words, **named):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*words, **named)


def test_counts_precision_recall_and_f1_by_hand():
    table = confusion([1, 1, 1, 0, 0], [1, 0, 0, 1, 0], 2)
    np.testing.assert_array_equal(table, [[1, 1], [2, 1]])
    precision, recall, f1 = precision_recall_f1(table)
    np.testing.assert_allclose(precision, [1 / 3, 1 / 2])
    np.testing.assert_allclose(recall, [1 / 2, 1 / 3])
    np.testing.assert_allclose(f1, [2 / 5, 2 / 5])


@pytest.mark.parametrize("classes", [1, 2, 3, 12])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("empty", [0, 1, NAN])
@pytest.mark.parametrize("average", [None, "micro", "macro", "weighted"])
def test_scores_of_classes_and_averages_are_those_of_scikit_learn(size, classes, empty, average):
    y, predicted = labels(size, classes), labels(size, classes, 1)
    table = confusion(y, predicted, classes)
    kinds = list(range(classes))
    theirs = quiet(metrics.confusion_matrix, y, predicted, labels=kinds)
    np.testing.assert_array_equal(table, theirs)
    theirs = metrics.precision_recall_fscore_support(
        y, predicted, labels=kinds, average=average, zero_division=empty
    )
    ours = np.array(precision_recall_f1(table, average, empty))
    if average == "weighted" and empty is NAN:  # no sample is of a class that was answered
        unknown = not set(y) & set(predicted)
        assert np.isnan(ours[0]) == unknown
        ours, theirs = ours[unknown:], theirs[unknown:]
    np.testing.assert_allclose(ours, np.array(theirs[: len(ours)]), rtol=1e-12)


def test_all_of_one_class_scores_as_in_scikit_learn():
    for truth, answer in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, predicted = np.full(5, truth), np.full(5, answer)
        for empty in (0, 1, NAN):
            theirs = metrics.precision_recall_fscore_support(
                y, predicted, labels=[0, 1], zero_division=empty
            )
            ours = precision_recall_f1(confusion(y, predicted, 2), empty=empty)
            np.testing.assert_allclose(ours, np.array(theirs[:3]))


def test_micro_averages_are_the_accuracy():
    y, predicted = labels(200, 5), labels(200, 5, 1)
    for value in precision_recall_f1(confusion(y, predicted, 5), "micro"):
        assert value == metrics.accuracy_score(y, predicted)


def test_nothing_of_a_class_is_an_error_unless_a_value_is_given():
    never = confusion([0, 1, 2], [0, 1, 0], 3)
    with pytest.raises(ValueError, match="the precision of class 2 is 0/0; give empty: 0, 1 or"):
        precision_recall_f1(never)
    with pytest.raises(ValueError, match="the recall of class 2 is 0/0"):
        precision_recall_f1(never.T)
    assert np.isnan(precision_recall_f1(never, empty=NAN).precision[2])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [0, 1, 5, 40, 3000])
def test_curves_and_areas_are_those_of_scikit_learn(size, seed, ties):
    y, scores = ranked(size, seed, ties)
    theirs = metrics.roc_curve(y, scores, drop_intermediate=False)
    for ours, other in zip(roc(y, scores), theirs, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-12)
    np.testing.assert_allclose(roc_auc(y, scores), metrics.roc_auc_score(y, scores), rtol=1e-12)
    precision, recall, thresholds = metrics.precision_recall_curve(y, scores)
    ours = precision_recall(y, scores)
    np.testing.assert_allclose(ours[0], precision[-2::-1], rtol=1e-12)
    np.testing.assert_allclose(ours[1], recall[-2::-1], rtol=1e-12)
    np.testing.assert_array_equal(ours[2], thresholds[::-1])
    np.testing.assert_allclose(
        average_precision(y, scores), metrics.average_precision_score(y, scores), rtol=1e-12
    )


def test_the_area_is_the_share_of_pairs_in_order_and_half_of_the_ties():
    y, scores = ranked(60, 4, ties=True)
    above = scores[y == 1][:, None] - scores[y == 0]
    assert roc_auc(y, scores) == pytest.approx(np.mean((np.sign(above) + 1) / 2))
    assert roc_auc([0, 1, 1], [5, 5, 5]) == 0.5


def test_only_the_order_of_scores_counts():
    y, scores = ranked(50, 2, ties=True)
    assert roc_auc(y, scores) == roc_auc(y, np.exp(scores))
    assert average_precision(y, scores) == average_precision(y, 3 * scores - 7)
    assert roc_auc(y, -scores) == pytest.approx(1 - roc_auc(y, scores))


def test_average_precision_of_a_constant_is_the_share_of_positives():
    assert average_precision([0, 1, 0, 0], [2, 2, 2, 2]) == 0.25


def test_a_ranking_needs_the_classes_that_it_ranks():
    for only in (0, 1):
        with pytest.raises(ValueError, match=f"y holds only {only}; allowed are 0 and 1, both"):
            roc_auc([only] * 3, [0.1, 0.2, 0.3])
    assert math.isnan(quiet(metrics.roc_auc_score, [1, 1], [0.1, 0.2]))
    with pytest.raises(ValueError, match="y holds only 0; allowed are 0 and 1, a 1 among them"):
        average_precision([0, 0], [0.1, 0.2])
    assert quiet(metrics.average_precision_score, [0, 0], [0.1, 0.2]) == 0
    assert average_precision([1, 1], [0.1, 0.2]) == 1


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", SIZES)
def test_log_loss_and_brier_score_are_those_of_scikit_learn(size, classes):
    y = labels(size, classes)
    p = softmax(rng(1).normal(size=(size, classes)))
    kinds = list(range(classes))
    assert log_loss(y, p) == pytest.approx(metrics.log_loss(y, p, labels=kinds), rel=1e-12)
    one = (y == 1).astype(int)
    theirs = metrics.brier_score_loss(one, p[:, 1], pos_label=1, labels=[0, 1])
    assert brier(one, p[:, 1]) == pytest.approx(theirs, rel=1e-12)


def test_a_truth_that_was_called_impossible_costs_infinity():
    assert log_loss([1], [[1, 0]]) == np.inf
    assert log_loss([0], [[1, 0]]) == 0
    assert brier([1, 0], [0, 0]) == 0.5


@pytest.mark.parametrize("size", SIZES)
def test_the_parts_of_the_brier_score_add_up(size):
    y, p = labels(size, 2), rng(1).random(size).round(1)
    bad, good, base = brier_parts(y, p)
    assert brier(y, p) == pytest.approx(bad - good + base)
    assert min(bad, good, base) >= 0


def test_parts_of_the_brier_score_by_hand():
    np.testing.assert_allclose(brier_parts([0, 1, 1, 1], [0.5, 0.5, 1, 1]), [0, 1 / 16, 3 / 16])
    np.testing.assert_allclose(brier_parts([0, 1, 1, 1], [0.25] * 4), [1 / 4, 0, 3 / 16])


@pytest.mark.parametrize("bins", [1, 2, 5, 10, 15])
@pytest.mark.parametrize("size", SIZES)
def test_reliability_is_the_calibration_curve_of_scikit_learn(size, bins):
    from sklearn.calibration import calibration_curve

    y, p = labels(size, 2), rng(1).random(size).round(1)  # on the edges of bins
    p[0] = 1.0
    said, seen, count = reliability(y, p, bins)
    share, mean = calibration_curve(y, p, n_bins=bins, pos_label=1)
    np.testing.assert_allclose(said, mean)
    np.testing.assert_allclose(seen, share)
    assert count.sum() == size
    assert calibration_error(y, p, bins) == pytest.approx(count @ np.abs(mean - share) / size)


def test_calibration_error_by_hand():
    y, p = [0, 0, 1, 1, 1], [0.1, 0.3, 0.9, 0.9, 0.6]
    assert calibration_error(y, p, bins=2) == pytest.approx(2 / 5 * 0.2 + 3 / 5 * 0.2)
    assert calibration_error([0, 1], [0, 1]) == 0
    assert calibration_error([0, 1], [1, 0]) == 1


def test_the_temperature_is_that_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("scikit-learn before 1.8 has no temperature scaling")
    for seed, scale in ((0, 0.3), (1, 1), (2, 5)):
        y = labels(400, 4, seed)
        z = scale * (rng(seed).normal(size=(400, 4)) + 1.5 * np.eye(4)[y])
        peer = calibration._TemperatureScaling().fit(z, y)
        assert fit_temperature(z, y) == pytest.approx(1 / peer.beta_, rel=1e-4)


def test_the_temperature_is_the_best_and_scales_with_the_logits():
    y = labels(300, 3)
    z = 4 * (rng(1).normal(size=(300, 3)) + np.eye(3)[y])
    best = fit_temperature(z, y)
    losses = [log_loss(y, softmax(z / (best * f))) for f in (1, 0.99, 1.01)]
    assert losses[0] == min(losses)
    assert fit_temperature(10 * z, y) == pytest.approx(10 * best)
    assert fit_temperature(z / 1e6, y) == pytest.approx(best / 1e6)


@pytest.mark.parametrize(
    ("z", "y"),
    [
        ([[1, 0], [0, 1]], [0, 1]),
        ([[1, 0], [0, 1]], [1, 0]),
        ([[1, 0], [1, 0]], [0, 1]),
        ([[1, 1], [2, 2]], [0, 1]),
    ],
)
def test_without_a_best_temperature_there_is_an_error(z, y):
    with pytest.raises(ValueError, match="z has no best temperature for y; allowed are logits"):
        fit_temperature(z, y)


def sentences(count, words, longest, seed, shortest=0):
    draw = rng(seed)
    sizes = draw.integers(shortest, longest + 1, count)
    return [[f"w{n}" for n in draw.integers(0, words, size)] for size in sizes]


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("words", "longest"), [(2, 6), (3, 25), (8, 12), (60, 30), (1000, 9)])
@pytest.mark.parametrize(("count", "several"), [(1, 1), (1, 3), (2, 1), (40, 1), (40, 3)])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_bleu_is_that_of_sacrebleu(words, longest, count, several, smooth, order):  # noqa: PLR0917
    for seed in range(3):
        tried = sentences(count, words, longest, seed)
        streams = [sentences(count, words, longest, 10 * seed + n + 5, 1) for n in range(several)]
        peer = sacrebleu.BLEU(
            tokenize="none",
            smooth_method="exp" if smooth else "none",
            max_ngram_order=order,
            force=True,
        )
        theirs = peer.corpus_score(
            [" ".join(one) for one in tried], [[" ".join(one) for one in s] for s in streams]
        )
        ours = bleu(tried, list(zip(*streams, strict=True)), order, smooth)
        assert ours.score == pytest.approx(theirs.score / 100, rel=1e-12)
        assert ours.brevity == pytest.approx(theirs.bp, rel=1e-12)
        if ours.score > 0:
            np.testing.assert_allclose(ours.precisions, np.array(theirs.precisions) / 100)


def test_bleu_of_text_cut_by_sacrebleu_is_that_of_the_text():
    english = ["The cat (black) sat; 3.5 m away.", "It didn't move, said 1,000 people!"]
    wanted = ["The black cat sat 3.5 m away.", "It did not move, 1,000 people said!"]
    for name, pairs in (
        ("13a", (english, wanted)),
        ("zh", (["猫在 3 米外。"], ["猫坐在 3 米外！"])),
    ):
        peer = sacrebleu.BLEU(tokenize=name)
        cut = [[peer.tokenizer(text).split() for text in side] for side in pairs]
        ours = bleu(cut[0], [[one] for one in cut[1]])
        theirs = peer.corpus_score(pairs[0], [pairs[1]])
        assert ours.score == pytest.approx(theirs.score / 100, rel=1e-12)


def test_bleu_by_hand_counts_a_word_no_more_often_than_the_reference():
    papineni = bleu([["the"] * 7], [[["the", "cat", "is", "on", "the", "mat"]]], order=1)
    assert papineni.precisions[0] == pytest.approx(2 / 7)
    short = bleu([list("ab")], [[list("abcd")]], order=2)
    assert short.score == pytest.approx(math.exp(1 - 4 / 2))
    near = bleu([list("abc")], [[list("ab"), list("abcd")]], order=1)
    assert near.brevity == 1  # of equally near lengths, the shorter


def test_bleu_of_nothing_in_common_and_of_silence_is_zero():
    assert bleu([list("ab")], [[list("cd")]]).score == 0
    assert bleu([[]], [[list("cd")]]).score == 0
    assert bleu([list("abc")], [[list("abc")]]).score == 0  # no run of four
    assert bleu([list("abcd")], [[list("abcd")]]).score == 1


def test_a_model_that_guesses_evenly_has_the_perplexity_of_its_choices():
    logs = np.full(12, math.log(1 / 7))
    assert perplexity(logs) == pytest.approx(7)
    assert bits_per_byte(logs, 24) == pytest.approx(math.log2(7) / 2)
    assert perplexity([0.0]) == 1
    assert perplexity([0.0, -np.inf]) == np.inf


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 17, 10000])
def test_the_interval_of_wilson_is_that_of_scipy(trials, level):
    for successes in {0, 1, trials // 3, trials - 1, trials}:
        theirs = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
        np.testing.assert_allclose(wilson(successes, trials, level), theirs, rtol=1e-9, atol=1e-12)


def test_the_bootstrap_draws_rows_of_all_columns_together():
    x = rng(1).normal(size=50)
    assert bootstrap(lambda a, b: np.abs(a - b).max(), (x, x), rng()) == (0, 0)


def test_the_ends_of_the_bootstrap_are_quantiles_of_the_resampled_statistic():
    x = rng(1).normal(size=40)
    means = [x[rng(2).integers(0, 40, 40)].mean()]
    assert bootstrap(np.mean, (x,), rng(2), samples=1) == pytest.approx((means[0], means[0]))
    draws = rng(3)
    means = [x[draws.integers(0, 40, 40)].mean() for _ in range(300)]
    low, high = bootstrap(np.mean, (x,), rng(3), samples=300, level=0.8)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstrap_agrees_with_that_of_scipy(level):
    y, scores = ranked(150, 0, ties=False)
    theirs = stats.bootstrap(
        (y, scores),
        roc_auc,
        paired=True,
        vectorized=False,
        method="percentile",
        confidence_level=level,
        n_resamples=2000,
        rng=rng(1),
    ).confidence_interval
    ours = bootstrap(roc_auc, (y, scores), rng(2), samples=2000, level=level)
    np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion([], [], 2), r"y has shape \(0,\); allowed are 1 axes, none empty"),
        (lambda: confusion([[0]], [0], 2), r"y has shape \(1, 1\); allowed are 1 axes"),
        (lambda: confusion([0, 1], [0], 2), "predicted has 1 entries; allowed are 2"),
        (lambda: confusion([0, 2], [0, 1], 2), "y holds 2; allowed are whole numbers to 1"),
        (lambda: confusion([0, 1], [0, -1], 2), "predicted holds -1; allowed are whole"),
        (lambda: confusion([0, 0.5], [0, 1], 2), "y holds 0.5; allowed are whole numbers"),
        (lambda: confusion([0, NAN], [0, 1], 2), "y holds NaN or infinity; allowed are numbers"),
        (lambda: precision_recall_f1([1, 2]), r"table has shape \(2,\); allowed is \[K, K\]"),
        (lambda: precision_recall_f1([[1, 2]]), r"table has shape \(1, 2\)"),
        (lambda: precision_recall_f1([[0, 0], [0, 0]]), "with a count above 0"),
        (lambda: precision_recall_f1([[1]], "mean"), "average is 'mean'; allowed are None, micro"),
        (lambda: precision_recall_f1([[1]], empty=2), "empty is 2; allowed are None, 0, 1 and NaN"),
        (lambda: roc([0, 1], [0.1, NAN]), "scores holds NaN or infinity; allowed are numbers"),
        (lambda: roc([0, 1], [0.1, np.inf]), "scores holds NaN or infinity"),
        (lambda: roc([0, 1], [0.1]), "y has 2 entries; allowed are 1"),
        (lambda: precision_recall([0, 1], []), r"scores has shape \(0,\)"),
        (lambda: log_loss([0], [[0.5, 0.6]]), "p has rows whose sum is not 1; allowed are prob"),
        (lambda: log_loss([2], [[0.5, 0.5]]), "y holds 2; allowed are whole numbers to 1"),
        (lambda: log_loss([0, 1], [[0.5, 0.5]]), "y has 2 entries; allowed are 1"),
        (lambda: log_loss([0], [0.5]), r"p has shape \(1,\); allowed are 2 axes"),
        (lambda: brier([0, 1], [0.5, 1.5]), "p reaches from 0.5 to 1.5; allowed is 0 to 1"),
        (lambda: brier([0, 1], [-0.5, 0.5]), "p reaches from -0.5 to 0.5; allowed is 0 to 1"),
        (lambda: brier([0, 1], [NAN, 0.5]), "p holds NaN or infinity"),
        (lambda: brier([0, 2], [0.5, 0.5]), "y holds 2"),
        (lambda: brier_parts([0], [0.5, 0.5]), "y has 1 entries; allowed are 2"),
        (lambda: reliability([0], [0.5], bins=0), "bins is 0; allowed is 1 or more"),
        (lambda: reliability([0, 1], [0.5]), "y has 2 entries; allowed are 1"),
        (lambda: calibration_error([], []), r"p has shape \(0,\)"),
        (lambda: fit_temperature([[0, 1]], [2]), "y holds 2; allowed are whole numbers to 1"),
        (lambda: fit_temperature([0, 1], [0, 1]), r"z has shape \(2,\); allowed are 2 axes"),
        (lambda: fit_temperature([[0, NAN]], [0]), "z holds NaN or infinity"),
        (
            lambda: bleu([], []),
            "references has 0 entries for 0 candidates; allowed is one for each",
        ),
        (lambda: bleu([["a"]], [[["a"]], [["b"]]]), "references has 2 entries for 1 candidates"),
        (lambda: bleu([["a"]], [[]]), "at least one, none empty"),
        (lambda: bleu(["a b"], [[["a"]]]), "candidates or references hold strings; allowed are"),
        (lambda: bleu([["a"]], [["a b"]]), "candidates or references hold strings"),
        (lambda: bleu([["a"]], [[["a"]]], order=0), "order is 0; allowed is 1 or more"),
        (lambda: perplexity([]), r"log_probabilities has shape \(0,\)"),
        (lambda: perplexity([-1, NAN]), "entries that are NaN or above 0; allowed is"),
        (lambda: bits_per_byte([0.1], 3), "entries that are NaN or above 0"),
        (lambda: bits_per_byte([-0.1], 0), "size is 0; allowed is 1 or more"),
        (lambda: wilson(3, 2), "successes is 3 of 2; allowed is 0 to trials, from 1"),
        (lambda: wilson(0, 0), "successes is 0 of 0"),
        (lambda: wilson(-1, 5), "successes is -1 of 5"),
        (lambda: wilson(1, 2, level=1), "level is 1; allowed is a number between 0 and 1"),
        (lambda: bootstrap(np.mean, ([],), rng()), r"columns have lengths \[0\]; allowed is one"),
        (lambda: bootstrap(np.dot, ([1], [1, 2]), rng()), r"columns have lengths \[1, 2\]"),
        (lambda: bootstrap(np.mean, ([1],), rng(), samples=0), "samples is 0; allowed is 1 or"),
        (lambda: bootstrap(np.mean, ([1],), rng(), level=0), "level is 0; allowed is a number"),
        (lambda: bootstrap(np.mean, ([NAN],), rng()), "statistic is NaN for one of the draws"),
        (lambda: bootstrap(roc_auc, ([0, 1], [1, 2]), rng()), "y holds only"),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
