"""Makes `minilm-l6-int8.bin`: all-MiniLM-L6-v2 in 8 bits, with an adapter as its last layer.

Without `--adapter` the last layer is the identity. `train_adapter.py` makes the adapter from
vectors of such a file, so the order is: this script, `train_adapter.py`, this script once more.
"""

import argparse
from pathlib import Path

import numpy as np

from minilm_file import write_model
from rows import HASHED_COUNT, HASHED_FIRST
from source_model import CLS, SEP, UNK, WEIGHTS_SHA256, WIDTH, SourceModel

NAME = "minilm-l6"
# Of a text, and the start and the end token.
POSITIONS = 256 + 2
TARGET = Path(__file__).parent.parent / "assets" / "minilm-l6-int8.bin"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--package", type=Path, required=True, help="wheel or folder with MiniLM")
    options.add_argument("--adapter", type=Path, help="a matrix of `train_adapter.py`, .npy")
    options.add_argument("--out", type=Path, default=TARGET)
    options = options.parse_args()
    adapter = np.load(options.adapter) if options.adapter else np.eye(WIDTH)
    if adapter.shape != (WIDTH, WIDTH) or not np.isfinite(adapter).all():
        raise SystemExit(f"{options.adapter} is not a finite {WIDTH} x {WIDTH} matrix")
    digest = write_model(
        options.out,
        SourceModel(options.package),
        adapter,
        POSITIONS,
        NAME,
        WEIGHTS_SHA256,
        (HASHED_FIRST, HASHED_COUNT),
        (UNK, CLS, SEP),
    )
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {NAME}@{digest[:12]}")


if __name__ == "__main__":
    main()
