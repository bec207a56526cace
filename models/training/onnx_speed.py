"""How fast ONNX Runtime is on the same model, to set beside `cargo bench --bench minilm`.

Builds the source model as an ONNX graph, without padding and with the mean over tokens at its end,
has ONNX Runtime quantise its matrices to 8 bits (dynamic, per channel), and measures both on one
thread: milliseconds of the thread's CPU time, the median and the least of some rounds, like the bench.
Needs `onnx` and `onnxruntime` on top of `requirements.txt`. The graph is checked against
`source_model.py` first.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from source_model import CLS, HEADS, LAYERS, SEP, WIDTH, SourceModel

ROUNDS, ROUND_SECONDS = 15, 0.2
TOKENS = (8, 16, 32, 64, 128, 256)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--package", type=Path, required=True, help="wheel or folder with MiniLM")
    options = options.parse_args()
    source = SourceModel(options.package)
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder, "f32.onnx"), Path(folder, "int8.onnx")
        onnx.save(graph(source.tensors), exact)
        quantize_dynamic(
            exact,
            small,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gather"],
        )
        sessions = {path.stem: session(path) for path in (exact, small)}
    ids = ids_of(16)
    expected = source.pooled(ids)[0]
    for name, opened in sessions.items():
        found = opened.run(None, {"ids": ids})[0][0]
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        print(f"{name}: cosine to the source model {cosine:.4f}")
    print(f"onnxruntime {onnxruntime.__version__}, one thread, ms of CPU time (median, least)")
    for tokens in TOKENS:
        spent = {name: measured(opened, ids_of(tokens)) for name, opened in sessions.items()}
        line = "".join(f"  {name} {a:8.3f} {b:8.3f}" for name, (a, b) in spent.items())
        print(f"{tokens:4} tokens{line}", flush=True)


def ids_of(tokens):
    """Common words between the start and the end token, which come on top as in the bench."""
    return np.array([[CLS, *(2000 + np.arange(tokens)), SEP]])


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measured(opened, ids):
    def spent(calls):
        start = time.thread_time()
        for _ in range(calls):
            opened.run(None, {"ids": ids})
        return time.thread_time() - start

    spent(3)
    calls = int(ROUND_SECONDS / max(spent(1), 1e-6)) + 1
    rounds = sorted(spent(calls) / calls * 1e3 for _ in range(ROUNDS))
    return rounds[ROUNDS // 2], rounds[0]


def graph(tensors):
    """The encoder as ONNX Runtime's optimizer knows it from the common exporters."""
    nodes, weights = [], {}

    def constant(name, value):
        weights[name] = np.ascontiguousarray(value)
        return name

    def op(kind, *inputs, **attributes):
        out = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], out, **attributes))
        return out

    def tensor(name):
        return constant(name, tensors[name])

    def linear(x, name):
        weight = constant(f"{name}.weight.T", tensors[f"{name}.weight"].T)
        return op("Add", op("MatMul", x, weight), tensor(f"{name}.bias"))

    def norm(x, name):
        scale, bias = tensor(f"{name}.weight"), tensor(f"{name}.bias")
        return op("LayerNormalization", x, scale, bias, epsilon=1e-12, axis=-1)

    heads = constant("heads", np.array([0, 0, HEADS, WIDTH // HEADS]))
    whole = constant("whole", np.array([0, 0, WIDTH]))
    divisor = constant("divisor", np.array(np.sqrt(WIDTH // HEADS), np.float32))
    root = constant("root", np.array(np.sqrt(2), np.float32))
    one, half = (constant(str(v), np.array(v, np.float32)) for v in (1.0, 0.5))

    x = op("Gather", tensor("embeddings.word_embeddings.weight"), "ids")
    length = op("Slice", op("Shape", "ids"), *(constant(f"at{i}", np.array([i])) for i in (1, 2)))
    places = tensor("embeddings.position_embeddings.weight")
    x = op("Add", x, op("Slice", places, constant("from", np.array([0])), length))
    kind = constant("type", tensors["embeddings.token_type_embeddings.weight"][0])
    x = norm(op("Add", x, kind), "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        q, k, v = (
            op("Reshape", linear(x, f"{at}attention.self.{part}"), heads)
            for part in ("query", "key", "value")
        )
        q, v = (op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        k = op("Transpose", k, perm=[0, 2, 3, 1])
        scores = op("Softmax", op("Div", op("MatMul", q, k), divisor), axis=-1)
        mixed = op("Transpose", op("MatMul", scores, v), perm=[0, 2, 1, 3])
        mixed = linear(op("Reshape", mixed, whole), f"{at}attention.output.dense")
        x = norm(op("Add", mixed, x), f"{at}attention.output.LayerNorm")
        wide = linear(x, f"{at}intermediate.dense")
        erf = op("Add", op("Erf", op("Div", wide, root)), one)
        wide = op("Mul", op("Mul", wide, erf), half)
        x = norm(op("Add", linear(wide, f"{at}output.dense"), x), f"{at}output.LayerNorm")
    nodes.append(
        helper.make_node("ReduceMean", [x, constant("axis", np.array([1]))], ["out"], keepdims=0)
    )
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "minilm",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, WIDTH])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    main()
