"""The file of an 8-bit transformer. `src/minilm/file.rs` reads it and documents the layout."""

import struct

import numpy as np
from blake3 import blake3

from source_model import HEADS, LAYERS, WIDTH

MAGIC = b"askxfm\r\n"
VERSION = 1
HEADER = struct.Struct("<8s14I32s32s")
LOWERCASE = 1
ALIGNMENT = 64
INNER = 1536
PANEL = 16


class Writer:
    def __init__(self, header):
        self.bytes = bytearray(header)

    def put(self, values, kind):
        """An array of one kind, its beginning aligned."""
        self.bytes += bytes(-len(self.bytes) % ALIGNMENT)
        self.bytes += np.ascontiguousarray(values, kind).tobytes()

    def put_rows(self, rows):
        """A matrix in 8 bits with a scale per row: the scales, then the rows."""
        scales, codes = quantised(rows)
        self.put(scales, "<f4")
        self.put(codes, "i1")

    def put_linear(self, weights, bias):
        """Scales and sums per output, the bias, and the weights in panels of 16 outputs."""
        scales, codes = quantised(weights)
        self.put(scales, "<f4")
        self.put(codes.sum(1, dtype=np.int32), "<i4")
        self.put(bias, "<f4")
        outputs, inputs = codes.shape
        panels = codes.reshape(outputs // PANEL, PANEL, inputs // 4, 4).transpose(0, 2, 1, 3)
        self.put(panels, "i1")

    def put_norm(self, tensors, name):
        self.put(tensors[f"{name}.weight"], "<f4")
        self.put(tensors[f"{name}.bias"], "<f4")


def quantised(rows):
    """Symmetric 8-bit codes from -127 to 127, and what 1 stands for in each row."""
    scales = np.maximum(np.abs(rows).max(1), 1e-9).astype(np.float32) / np.float32(127)
    return scales, np.rint(rows / scales[:, None]).astype(np.int8)


def write_model(path, source, adapter, positions, name, source_sha256, hashed, ids):
    """`ids` are those of the unknown, start and end tokens. Returns the checksum."""
    tensors = source.tensors
    header = HEADER.pack(
        MAGIC,
        VERSION,
        HEADER.size,
        len(source.vocabulary),
        WIDTH,
        LAYERS,
        HEADS,
        INNER,
        positions,
        LOWERCASE,
        *ids,
        *hashed,
        name.encode("ascii"),
        bytes.fromhex(source_sha256),
    )
    out = Writer(header)
    out.put_rows(tensors["embeddings.word_embeddings.weight"])
    places = tensors["embeddings.position_embeddings.weight"][:positions]
    out.put(places + tensors["embeddings.token_type_embeddings.weight"][0], "<f4")
    out.put_norm(tensors, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        heads = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        out.put_linear(
            np.concatenate([tensors[f"{part}.weight"] for part in heads]),
            np.concatenate([tensors[f"{part}.bias"] for part in heads]),
        )
        for part in ("attention.output", "intermediate", "output"):
            dense = f"{at}{part}.dense"
            out.put_linear(tensors[f"{dense}.weight"], tensors[f"{dense}.bias"])
            if part != "intermediate":
                out.put_norm(tensors, f"{at}{part}.LayerNorm")
    # Transposed: the outputs of one input lie together.
    out.put(np.asarray(adapter).T, "<f4")
    for word in (word.encode("utf-8") for word in source.vocabulary):
        assert 0 < len(word) < 256
        out.bytes += bytes([len(word)]) + word
    digest = blake3(out.bytes)
    path.write_bytes(bytes(out.bytes) + digest.digest())
    return digest.hexdigest()


def read_adapter(path):
    """The adapter of a model file, as a matrix to multiply columns with."""
    data = path.read_bytes()
    assert blake3(data[:-32]).digest() == data[-32:], "the checksum does not match"
    magic, version, size, tokens, width, layers, _heads, inner, positions, *_ = HEADER.unpack_from(
        data
    )
    assert (magic, version) == (MAGIC, VERSION)

    def linear(inputs, outputs):
        return [4 * outputs, 4 * outputs, 4 * outputs, inputs * outputs]

    norm = [4 * width, 4 * width]
    arrays = [4 * tokens, tokens * width, 4 * positions * width, *norm]
    for _layer in range(layers):
        arrays += [*linear(width, 3 * width), *linear(width, width), *norm]
        arrays += [*linear(width, inner), *linear(inner, width), *norm]
    at = size
    for length in arrays:
        at += -at % ALIGNMENT + length
    at += -at % ALIGNMENT
    return np.frombuffer(data, "<f4", width * width, at).reshape(width, width).T
