"""Writes `tests/golden/minilm_l6.jsonl`: what the f32 model with the adapter makes of some texts.

The Rust tests hold the 8-bit model against it. Run it again after the adapter changes; the texts
were written for this project.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from minilm_file import read_adapter
from rows import rows_of
from source_model import CLS, SEP, SourceModel

HERE = Path(__file__).parent
TARGET = HERE.parent / "tests" / "golden" / "minilm_l6.jsonl"
MODEL = HERE.parent / "assets" / "minilm-l6-int8.bin"

LONG = (
    "We moved our billing service to a new region last week. Since then, every third invoice shows "
    "the wrong tax rate, although the table of rates was copied without an error. "
)

TEXTS = [
    "How do I reset my password?",
    "how can i change my password",
    "I forgot my password",
    "What is the capital of France?",
    "Which city is the capital of France",
    "What is the capital of Germany?",
    "dog bites man",
    "man bites dog",
    "Is Python faster than Go?",
    "Is Go faster than Python?",
    "Should I take the train or the plane from Paris to Berlin?",
    "Convert 3.5 miles to kilometres, please.",
    "Convert 35 miles to kilometres, please.",
    "Write a haiku about semantic caches!",
    "def f(x): return x**2  # what does this do?",
    "git rebase -i HEAD~3",
    "SELECT name FROM users WHERE age > 30 ORDER BY name LIMIT 10;",
    "Can I not eat before the blood test?",
    "Can I eat before the blood test?",
    "a",
    "?",
    "Thanks",
    "Elvis",
    "Überraschung! Wie geht's?",
    "¿Cómo restablezco mi contraseña?",
    "Как сбросить пароль?",
    "パスワードをリセットする方法",
    "如何重置密码",
    "what does \U00013000 mean",
    "what does \U00013001 mean",
    "🙂 thumbs 👍🏽 up",
    "x" * 120,
    "[CLS] [SEP] [PAD]",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "Explain the difference between a mutex, a semaphore and a condition variable to somebody who "
    "has only ever written single-threaded programs.",
    LONG,
    LONG * 2,
    LONG * 4,
    LONG * 6,
]


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--package", type=Path, required=True, help="wheel or folder with MiniLM")
    options = options.parse_args()
    source = SourceModel(options.package)
    adapter = read_adapter(MODEL)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with TARGET.open("w", encoding="ascii") as target:
        for text, ids in zip(TEXTS, rows_of(source.tokenizer, TEXTS)):
            row = source.pooled(np.array([[CLS, *ids, SEP]]))[0] @ adapter.T
            row /= np.linalg.norm(row)
            line = {"text": text, "row": [round(float(value), 4) for value in row]}
            target.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
