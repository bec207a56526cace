"""Trains the adapter: the 384 x 384 matrix that `minilm_int8.py` puts behind the transformer.

Two texts of a labelled pair are mapped by one matrix, and the logistic loss on `scale * cosine +
bias` is lowered, starting from the identity. Only pairs of the `train` part are used; `dev` is the
gate. The vectors are those of the Rust model itself, so that the adapter sees what it will see.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

from metrics import PairSet
from rows import rows_of
from source_model import CLS, SEP, SourceModel
from split import read_pairs, split
from train_static import Adam

NATURAL = "qqp_pairs_natural.jsonl.gz"
BALANCED = "qqp_pairs_balanced_extra.jsonl.gz"
OUT_OF_DOMAIN = ("checklist_qqp_pairs", "snips_slot_pairs_derived", "mrpc_pairs")
WIDTH = 384

EPOCHS, BATCH = 8, 512
RATE, SCALAR_RATE, DECAY = 5e-4, 1e-2, 0.01
NOISE = 0.01
START = (12.0, -9.0)
SEED = 5

LEAST_DEV_AUC = 0.885
MOST_INT8_CHANGE = 0.003


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder of labelled pairs")
    options.add_argument("--package", type=Path, required=True, help="wheel or folder with MiniLM")
    options.add_argument("--embed", required=True, help="the built example `minilm_vectors`")
    options.add_argument("--model", type=Path, required=True, help="a file without an adapter")
    options.add_argument("--out", type=Path, required=True, help="where the matrix goes, .npy")
    options.add_argument("--report", type=Path, help="where the measured quality goes, .json")
    options = options.parse_args()

    parts = split(options.data)
    train = parts["train"][NATURAL] + parts["train"][BALANCED]
    sets = {part: PairSet(parts[part][NATURAL]) for part in ("dev", "test")}
    for name in OUT_OF_DOMAIN:
        sets[name] = PairSet(list(read_pairs(options.data / f"{name}.jsonl.gz")))

    texts = sorted({text for a, b, _ in train for text in (a, b)})
    found = embedded(options.embed, options.model, texts)
    index = {text: row for row, text in enumerate(texts)}
    pairs = np.array([(index[a], index[b], label) for a, b, label in train])
    pairs = pairs[np.isfinite(found[pairs[:, :2]]).all((1, 2))]
    adapter = fit(found, pairs)

    report = {"pairs": len(pairs), "positives": float(pairs[:, 2].mean()), "quality": {}}
    for name, pair_set in sets.items():
        raw = embedded(options.embed, options.model, pair_set.texts)
        report["quality"][name] = {
            "pairs": len(pair_set.labels),
            "positives": float(pair_set.labels.mean()),
            "without": measured(pair_set, raw, name in ("dev", "test")),
            "with": measured(pair_set, unit(raw @ adapter.T)[0], name in ("dev", "test")),
        }
        print(name, json.dumps(report["quality"][name]), flush=True)
    report["f32"] = reference_quality(SourceModel(options.package), sets["dev"], adapter)
    change = report["quality"]["dev"]["with"]["auc"] - report["f32"]["with"]["auc"]
    if not abs(change) <= MOST_INT8_CHANGE:
        raise SystemExit(f"8 bits move the dev AUC by {change:+.4f}")
    auc = report["quality"]["dev"]["with"]["auc"]
    if not auc >= LEAST_DEV_AUC:
        raise SystemExit(f"dev AUC is {auc:.4f}, at least {LEAST_DEV_AUC} is wanted")
    np.save(options.out, adapter)
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


def embedded(program, model, texts):
    """One row per text; a text that the model refuses has a row of NaN."""
    lines = "".join(json.dumps(text) + "\n" for text in texts).encode()
    found = subprocess.run([program, str(model)], input=lines, stdout=subprocess.PIPE, check=True)
    rows = np.frombuffer(found.stdout, "<f4").reshape(len(texts), WIDTH)
    return rows


def reference_quality(source, pair_set, adapter):
    """Pair quality of the f32 model, without and with the adapter."""
    ids = rows_of(source.tokenizer, pair_set.texts)
    found = np.empty((len(ids), WIDTH), np.float32)
    order = np.argsort([len(row) for row in ids], kind="stable")
    start = 0
    while start < len(order):
        length = len(ids[order[start]])
        batch = [at for at in order[start : start + 64] if len(ids[at]) == length]
        found[batch] = source.pooled(np.array([[CLS, *ids[at], SEP] for at in batch]))
        start += len(batch)
    return {
        "without": pair_set.pair_quality(unit(found)[0]),
        "with": pair_set.pair_quality(unit(found @ adapter.T)[0]),
    }


def measured(pair_set, vectors, retrieval):
    assert np.isfinite(vectors).all(), "the model refused a text"
    return pair_set.quality(vectors) if retrieval else pair_set.pair_quality(vectors)


def fit(vectors, pairs, epochs=EPOCHS, seed=SEED):
    """The matrix W for which W a and W b of a positive pair point the same way. `pairs` holds
    rows of (index of a, index of b, label)."""
    random = np.random.default_rng(seed)
    matrix = np.eye(vectors.shape[1], dtype=np.float32)
    scalars = np.array(START)
    matrix_adam, scalar_adam = Adam(matrix), Adam(scalars)
    steps = epochs * (len(pairs) // BATCH)
    order = np.empty(0, int)
    for step in range(steps):
        if len(order) < BATCH:
            order = random.permutation(len(pairs))
        batch, order = pairs[order[:BATCH]], order[BATCH:]
        noise = random.standard_normal((BATCH, vectors.shape[1]), dtype=np.float32)
        a = unit(vectors[batch[:, 0]] + np.float32(NOISE) * noise)[0]
        b = vectors[batch[:, 1]]
        loss, gradient, d_scalars = pair_loss(matrix, scalars, a, b, batch[:, 2])
        left = 1 - step / steps
        matrix *= np.float32(1 - RATE * left * DECAY)
        matrix_adam.step(matrix, gradient, np.float32(RATE * left))
        scalar_adam.step(scalars, d_scalars, SCALAR_RATE * left)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"step {step + 1} of {steps}: loss {loss:.4f}", flush=True)
    return matrix


def pair_loss(matrix, scalars, a, b, labels):
    """The mean logistic loss, and its gradients by the matrix and by (scale, bias).
    `test_training.py` checks them against finite differences."""
    left, left_length = unit(a @ matrix.T)
    right, right_length = unit(b @ matrix.T)
    cosine = np.einsum("ij,ij->i", left, right)
    labels = labels.astype(matrix.dtype)
    logit = scalars[0] * cosine + scalars[1]
    loss = np.mean(np.logaddexp(0, logit) - labels * logit)
    d_logit = (1 / (1 + np.exp(-logit)) - labels) / len(labels)
    d_cosine = (d_logit * scalars[0]).astype(matrix.dtype)[:, None]
    d_left = d_cosine * (right - cosine[:, None] * left) / left_length
    d_right = d_cosine * (left - cosine[:, None] * right) / right_length
    gradient = d_left.T @ a + d_right.T @ b
    return loss, gradient, np.array([np.dot(d_logit, cosine), d_logit.sum()])


def unit(rows):
    """Rows of unit length, and the lengths as a column."""
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows / lengths, lengths


if __name__ == "__main__":
    main()
