"""Writes the card of `minilm-l6-int8.bin` from the report of `train_adapter.py`."""

import argparse
import json
from pathlib import Path

from minilm_int8 import NAME, TARGET
from source_model import PACKAGE, WEIGHTS_SHA256

TITLES = {
    "dev": "dev",
    "test": "test",
    "checklist_qqp_pairs": "CheckList",
    "snips_slot_pairs_derived": "SNIPS slots",
    "mrpc_pairs": "MRPC",
}


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--report", type=Path, required=True, help="of train_adapter.py, .json")
    options = options.parse_args()
    digest = TARGET.read_bytes()[-32:].hex()
    report = json.loads(options.report.read_text())
    TARGET.with_suffix(".md").write_text(render(digest, TARGET.stat().st_size, report))


def render(digest, size, report):
    quality, f32 = report["quality"], report["f32"]
    lines = [
        f"# {NAME}",
        "",
        "<!-- Written by training/minilm_card.py. -->",
        "",
        "A transformer of six layers and 384 dimensions, 8-bit weights with a scale per output, and a",
        "384 x 384 matrix behind it, the adapter, that was trained on labelled pairs of questions.",
        "A text's vector is the mean of its tokens', mapped by the adapter and brought to unit length;",
        "it has the same bits on every machine. English, case and accents ignored, at most 256",
        "tokens.",
        "",
        "| | |",
        "|---|---|",
        f"| File | `{TARGET.name}`, {size:,} bytes, format version 1 (`src/minilm/file.rs`) |",
        f"| BLAKE3 of its contents, stored at its end | `{digest}` |",
        f"| Id | `{NAME}@{digest[:12]}`, pooling `mean` |",
        f"| Made from | all-MiniLM-L6-v2, package {PACKAGE} |",
        f"| SHA-256 of its `model.safetensors` | `{WEIGHTS_SHA256}` |",
        f"| Adapter trained on | {report['pairs']:,} pairs of questions, {report['positives']:.0%} of "
        "them duplicates |",
        "",
        "## Measured quality",
        "",
        "AUC and average precision of the cosine over labelled pairs; share of different pairs at",
        "cosine 0.9 or more. No pair below was seen by the adapter. The source model's own card says",
        "that it was trained on duplicates of the same site as `dev` and `test`, so both are",
        "somewhat better than on questions from elsewhere. `dev` is the gate; `test` chose nothing.",
        "",
        "| set | pairs | duplicates | vectors | AUC | AP | different pairs at 0.9 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in quality.items():
        for which, title in (("without", "without adapter"), ("with", "with adapter")):
            found = row[which]
            lines.append(
                f"| {TITLES[name]} | {row['pairs']:,} | {row['positives']:.0%} | {title} "
                f"| {found['auc']:.4f} | {found['ap']:.4f} | {found['negatives_at_0.9']:.1%} |"
            )
    lines += [
        "",
        f"In f32 the AUC on `dev` is {f32['without']['auc']:.4f} without and "
        f"{f32['with']['auc']:.4f} with the adapter: 8 bits move it by "
        f"{quality['dev']['without']['auc'] - f32['without']['auc']:+.4f} and "
        f"{quality['dev']['with']['auc'] - f32['with']['auc']:+.4f}.",
        "",
        "Retrieval: one text of each pair is stored, the other is asked. Right at the top: share",
        "of the queries with a stored duplicate whose nearest text is one. Hits: share of those",
        "queries answered rightly at the threshold where wrong answers are 1, 2 or 5 % of *all*",
        "queries; a nearest text that nobody labelled counts as wrong.",
        "",
        "| set | vectors | right at the top | hits at 1 % wrong | at 2 % | at 5 % |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("dev", "test"):
        for which, title in (("without", "without adapter"), ("with", "with adapter")):
            row = quality[name][which]
            hits = " | ".join(f"{row[f'hits_at_{percent}%_wrong']:.3f}" for percent in (1, 2, 5))
            lines.append(f"| {name} | {title} | {row['top1']:.3f} | {hits} |")
    lines += [
        "",
        "The adapter knows questions as people ask them on one site. On other texts it may be of no",
        "use or do harm: see the rows of the other sets. Whoever serves answers by similarity needs a",
        "check of the texts on top.",
        "",
        "## How it was made",
        "",
        "1. Every linear map and the word embeddings in 8 bits, from -127 to 127, with a scale per",
        "   output and per word; norms, biases and places stay in f32. Activations are rounded to 8",
        "   bits when the model runs, with a scale per token.",
        "2. Vectors of the training questions by this very model with an identity as its last map.",
        "3. The matrix starts as the identity. Logistic loss on `scale * cosine + bias` over the pairs",
        "   of the `train` part (`training/split.py`), AdamW, batches of 512, 8 epochs.",
        "",
        "## Licence",
        "",
        "all-MiniLM-L6-v2 is licensed under the Apache License 2.0. This file is a changed version of",
        "it: rounded to 8 bits, cut to the first 258 places, without its pooler, in another format, and",
        "with the adapter added. The pairs are Quora's, released for research and taken from public",
        "collections; no text of theirs is in the repository, and the data's other sets were used for",
        "measuring only.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
