"""Checks of the training code itself: `python -m unittest` in this folder."""

import unittest

import numpy as np

from metrics import auc, average_precision
from rows import fnv1a
from split import components, normalise, part_of_component
from train_adapter import pair_loss
from train_static import Recipe, bag, losses


class Gradients(unittest.TestCase):
    def test_gradients_agree_with_finite_differences(self):
        random = np.random.default_rng(1)
        table = random.standard_normal((12, 5))
        scalars = np.array([0.7, 3.0, -1.0])
        labels = np.array([1, 0, 1, 1, 0])
        sides = [
            bag([random.integers(0, 12, 4) for _ in labels], 12).astype(np.float64)
            for _ in range(2)
        ]
        recipe = Recipe(pair_weight=0.8, softmax_weight=0.6)

        def total(table, scalars):
            (pair, softmax), _, _ = losses(table, scalars, sides, labels, recipe)
            return 0.8 * pair + 0.6 * softmax

        _, gradient, scalar_gradient = losses(table, scalars, sides, labels, recipe)
        for values, found in ((table, gradient), (scalars, scalar_gradient)):
            for at in np.ndindex(values.shape):
                kept, step = values[at], 1e-6
                values[at] = kept + step
                above = total(table, scalars)
                values[at] = kept - step
                below = total(table, scalars)
                values[at] = kept
                self.assertAlmostEqual((above - below) / (2 * step), found[at], places=6)

    def test_the_adapters_gradients_agree_with_finite_differences(self):
        random = np.random.default_rng(2)
        matrix = np.eye(6) + 0.1 * random.standard_normal((6, 6))
        scalars = np.array([3.0, -1.0])
        a, b = random.standard_normal((2, 5, 6))
        labels = np.array([1, 0, 1, 1, 0])
        _, gradient, scalar_gradient = pair_loss(matrix, scalars, a, b, labels)
        for values, found in ((matrix, gradient), (scalars, scalar_gradient)):
            for at in np.ndindex(values.shape):
                kept, step = values[at], 1e-6
                values[at] = kept + step
                above = pair_loss(matrix, scalars, a, b, labels)[0]
                values[at] = kept - step
                below = pair_loss(matrix, scalars, a, b, labels)[0]
                values[at] = kept
                self.assertAlmostEqual((above - below) / (2 * step), found[at], places=6)


class Metrics(unittest.TestCase):
    def test_auc_and_average_precision_of_known_rankings(self):
        self.assertEqual(auc([4, 3, 2, 1], [1, 1, 0, 0]), 1.0)
        self.assertEqual(auc([1, 1, 1, 1], [1, 1, 0, 0]), 0.5)
        self.assertAlmostEqual(average_precision([4, 3, 2, 1], [1, 0, 1, 0]), (1 + 2 / 3) / 2)


class Split(unittest.TestCase):
    """Values that another implementation of the rule can be held against."""

    def test_normalised_texts(self):
        for text, normal in (
            ("How do I RESET my password?", "how do i reset my password"),
            ("  C++ vs. C#\t(2024) ", "c vs c 2024"),
            ("Caf\u00e9\u00a0\u201cna\u00efve\u201d \u2014 ok", "caf\u00e9 na\u00efve ok"),
            ("\u00c9T\u00c9", "\u00c9t\u00c9"),
            ("?!", ""),
        ):
            self.assertEqual(normalise(text), normal)

    def test_parts_of_known_components(self):
        for text, part in PARTS.items():
            self.assertEqual(part_of_component(text), part)

    def test_components_cross_labels_and_take_their_smallest_text(self):
        found = components([("B", "c", 0), ("C!", "a", 1), ("x", "y", 1), ("?", "z", 1)])
        self.assertEqual(found, {"b": "a", "c": "a", "a": "a", "x": "x", "y": "x"})


class Hash(unittest.TestCase):
    def test_fnv1a_of_published_values(self):
        self.assertEqual(fnv1a(b""), 0xCBF29CE484222325)
        self.assertEqual(fnv1a(b"foobar"), 0x85944171F73967E8)


PARTS = {
    "a": "calibration",
    "hello world": "test",
    "how do i reset my password": "dev",
    "what is rust": "train",
    "caf\u00e9 na\u00efve ok": "train",
}

if __name__ == "__main__":
    unittest.main()
