"""Writes the tiny models that `models/tests/onnx.rs` runs: `python make_models.py`, with the package onnx.

A word has a vector of four components by its topic, so that what a model should say can be told by reading
its input. None of it was trained.
"""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

HERE = Path(__file__).parent
TOPICS = {
    "account": ["reset", "password", "forgot", "login"],
    "weather": ["weather", "rain", "today", "sunny"],
    "neither": ["how", "do", "i", "my", "the", "is"],
}
CONTROLS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
POSITIONS = 24


def vocabulary():
    words = CONTROLS + ["query", ":", "a"] + [word for topic in TOPICS.values() for word in topic]
    return {word: number for number, word in enumerate(words)}


def table(words):
    rows = np.zeros((len(words), 4), dtype=np.float32)
    for axis, topic in enumerate(TOPICS.values()):
        for place, word in enumerate(topic):
            rows[words[word]] = 0.1 * place / 4
            rows[words[word], axis] = 0.2 if topic is TOPICS["neither"] else 1.0
    rows[words["[CLS]"], 3] = 0.05
    rows[words["a"], 3] = 0.1
    rows[words["query"], 3] = 1.0
    return rows


def tokenizer(words):
    """With padding and truncation, as published files have them, which must have no effect."""
    token = lambda name, kind: {"SpecialToken": {"id": name, "type_id": kind}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    special = lambda name: {"id": name, "ids": [words[name]], "tokens": [name]}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": words["[PAD]"], "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [
            {
                "id": words[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for name in CONTROLS
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
            "pair": [
                token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1),
            ],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def write(name, nodes, inputs, outputs, constants):
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def sentence(words):
    """Vectors of tokens, their mean, and a table of positions that bounds the length of a text."""
    ids = [tensor(name, TensorProto.INT64, ["batch", "tokens"]) for name in ("input_ids", "position_ids")]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Gather", ["places", "position_ids"], ["where"]),
        helper.make_node("Add", ["words", "where"], ["last_hidden_state"]),
        helper.make_node("ReduceMean", ["last_hidden_state"], ["sentence_embedding"], axes=[1], keepdims=0),
    ]
    outputs = [
        tensor("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 4]),
        tensor("sentence_embedding", TensorProto.FLOAT, ["batch", 4]),
    ]
    places = np.zeros((POSITIONS, 4), dtype=np.float32)
    write("sentence", nodes, ids, outputs, [constant("table", table(words)), constant("places", places)])


def pair(words, name, labels):
    """The dot product of what the two texts sum up to, less 2; of three labels it is the last.

    The second text counts double from its third component on, so that the order matters."""
    kinds = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = [tensor(kind, TensorProto.INT32, ["batch", "tokens"]) for kind in kinds]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["mask", "second"], ["first"]),
        helper.make_node("Unsqueeze", ["first", "last"], ["of_first"]),
        helper.make_node("Unsqueeze", ["second", "last"], ["of_second"]),
        helper.make_node("Mul", ["words", "of_first"], ["words_1"]),
        helper.make_node("Mul", ["words", "of_second"], ["words_2"]),
        helper.make_node("ReduceSum", ["words_1", "tokens"], ["sum_1"], keepdims=0),
        helper.make_node("ReduceSum", ["words_2", "tokens"], ["sum_2"], keepdims=0),
        helper.make_node("Mul", ["sum_2", "tilt"], ["tilted"]),
        helper.make_node("Mul", ["sum_1", "tilted"], ["products"]),
        helper.make_node("ReduceSum", ["products", "tokens"], ["dot"], keepdims=1),
        helper.make_node("Sub", ["dot", "two"], ["yes"]),
    ]
    if labels == 1:
        nodes.append(helper.make_node("Identity", ["yes"], ["logits"]))
    else:
        nodes.append(helper.make_node("Neg", ["yes"], ["no"]))
        nodes.append(helper.make_node("Sub", ["yes", "yes"], ["neutral"]))
        nodes.append(helper.make_node("Concat", ["no", "neutral", "yes"], ["logits"], axis=1))
    constants = [
        constant("table", table(words)),
        constant("tokens", np.array([1], dtype=np.int64)),
        constant("last", np.array([2], dtype=np.int64)),
        constant("tilt", np.array([[1, 1, 2, 2]], dtype=np.float32)),
        constant("two", np.array([[2]], dtype=np.float32)),
    ]
    write(name, nodes, inputs, [tensor("logits", TensorProto.FLOAT, ["batch", labels])], constants)


def unusable(words):
    """What an export can get wrong: a fixed length, an input of another kind, another type of number."""
    rows = constant("table", table(words))
    gather = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])
    output = tensor("last_hidden_state", TensorProto.FLOAT, [1, 16, 4])
    write("fixed", [gather], [tensor("input_ids", TensorProto.INT64, [1, 16])], [output], [rows])
    image = helper.make_node("Identity", ["pixel_values"], ["last_hidden_state"])
    pixels = tensor("pixel_values", TensorProto.FLOAT, [1, 16, 4])
    write("image", [image], [pixels], [output], [])
    half = helper.make_node("Cast", ["floats"], ["last_hidden_state"], to=TensorProto.FLOAT16)
    gather = helper.make_node("Gather", ["table", "input_ids"], ["floats"])
    ids = tensor("input_ids", TensorProto.INT64, ["batch", "tokens"])
    output = tensor("last_hidden_state", TensorProto.FLOAT16, ["batch", "tokens", 4])
    write("half", [gather, half], [ids], [output], [rows])


def main():
    words = vocabulary()
    (HERE / "tokenizer.json").write_text(json.dumps(tokenizer(words), indent=1) + "\n")
    sentence(words)
    pair(words, "pair", 1)
    pair(words, "pair_of_three", 3)
    unusable(words)


if __name__ == "__main__":
    main()
