"""Makes `assets/idf.bin`: how rare each word piece is among the training questions.

One byte per id of the vocabulary: inverse document frequency ln((n + 1) / (df + 1)) in steps of
1/20, where n is the number of distinct training texts and df how many of them hold the piece. A
piece that none holds gets the largest value. No text can be read out of it.
"""

import argparse
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer

from split import normalise, split
from table_file import read_vocabulary

STEPS_PER_NAT = 20


def main():
    assets = Path(__file__).parent.parent / "assets"
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder of the labelled pairs")
    options.add_argument("--table", type=Path, default=assets / "static-128.bin")
    options.add_argument("--out", type=Path, default=assets / "idf.bin")
    options = options.parse_args()

    vocabulary = read_vocabulary(options.table)
    tokenizer = BertWordPieceTokenizer({token: id for id, token in enumerate(vocabulary)})
    texts = {
        normalise(text): text
        for rows in split(options.data)["train"].values()
        for a, b, _label in rows
        for text in (a, b)
    }
    found = np.zeros(len(vocabulary), np.int64)
    for encoding in tokenizer.encode_batch(sorted(texts.values()), add_special_tokens=False):
        found[np.unique(encoding.ids)] += 1
    idf = np.log((len(texts) + 1) / (found + 1))
    steps = np.rint(idf * STEPS_PER_NAT)
    assert 0 <= steps.min() and steps.max() <= 255
    options.out.write_bytes(steps.astype(np.uint8).tobytes())
    print(f"{len(texts)} texts, {np.count_nonzero(found)} of {len(found)} pieces, most {idf.max():.2f}")


if __name__ == "__main__":
    main()
