"""Tests of confident learning on small tables of probabilities, and of dealing folds."""

import numpy as np

from fashion_keras.check.label_errors import deal_folds, find_suspects, out_of_fold


def test_suspects_are_those_over_the_threshold_of_another_class():
    # Thresholds: the mean of 0.9, 0.8, 0.1 for the first class, of 0.7, 0.6 for the second.
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.4, 0.6]])
    suspects = find_suspects(np.array([0, 0, 0, 1, 1]), probabilities)
    assert [(one.number, one.given, one.likelier) for one in suspects] == [(2, 0, 1)]
    assert (suspects[0].probability, suspects[0].likelier_probability) == (0.1, 0.9)


def test_a_class_that_is_never_sure_needs_less_to_be_suspected():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.7, 0.3]])
    suspects = find_suspects(np.array([0, 0, 0, 1, 1]), probabilities)
    assert [(one.number, one.likelier) for one in suspects] == [(2, 1)]


def test_the_surest_suspect_comes_first_and_an_absent_class_is_none():
    probabilities = np.array(
        [[0.4, 0.6, 0], [0.1, 0.9, 0], [0.9, 0.1, 0], [0.9, 0.1, 0], [0, 1, 0]]
    )
    numbers = np.array([0, 0, 0, 0, 1])
    probabilities[4] = [0.5, 0.5, 0]
    assert [one.number for one in find_suspects(numbers, probabilities)] == [1, 0]


def test_folds_hold_each_class_evenly_and_copies_together():
    numbers = np.repeat([0, 1], [30, 20])
    folds = deal_folds(numbers, [[0, 7, 40]], seed=1)
    assert folds[0] == folds[7] == folds[40]
    assert np.bincount(folds[:30]).min() >= 5
    assert np.bincount(folds[30:]).min() >= 3
    assert (deal_folds(numbers, [], seed=1) == deal_folds(numbers, [], seed=1)).all()


def test_classes_of_one_photo_are_not_all_in_one_fold():
    assert len(set(deal_folds(np.arange(3), [], seed=1))) == 3


def test_each_photo_is_judged_by_ridge_regression_on_the_other_folds():
    generator = np.random.default_rng(1)
    numbers, folds = np.arange(60) % 3, np.arange(60) // 20
    vectors = np.eye(8)[numbers] + generator.normal(0, 0.4, (60, 8))
    found = out_of_fold([vectors[:25], vectors[25:]], numbers, folds)
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    known, asked = rows[folds != 1], rows[folds == 1]
    targets = np.eye(3)[numbers[folds != 1]]
    centred = known - known.mean(axis=0)
    penalised = centred.T @ centred + 1e-4 * len(known) * np.eye(8)
    weights = np.linalg.solve(penalised, centred.T @ (targets - targets.mean(axis=0)))
    scores = (asked - known.mean(axis=0)) @ weights + targets.mean(axis=0)
    # Probabilities are powers of the scores: their logarithms differ by as much as these, times
    # the sharpness that was chosen.
    logits = np.log(found[folds == 1])
    ratio = np.ptp(logits, axis=1) / np.ptp(scores, axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert (found.argmax(axis=1) == numbers).mean() > 0.8
