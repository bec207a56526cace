"""The file of a static table. `src/static_model/table.rs` reads it and documents the layout."""

import struct

import numpy as np
from blake3 import blake3

MAGIC = b"askemb\r\n"
VERSION = 1
HEADER = struct.Struct("<8sIIIIfIIIIII12x32s32s")
LOWERCASE = 1


def write_table(path, rows, scale, vocabulary, name, source_sha256, unk, cls, sep, hashed):
    assert rows.dtype == np.int8 and rows.shape[0] == len(vocabulary)
    words = [word.encode("utf-8") for word in vocabulary]
    assert all(len(word) < 256 for word in words)
    header = HEADER.pack(
        MAGIC,
        VERSION,
        HEADER.size,
        rows.shape[0],
        rows.shape[1],
        scale,
        LOWERCASE,
        unk,
        cls,
        sep,
        *hashed,
        name.encode("ascii"),
        bytes.fromhex(source_sha256),
    )
    body = header + rows.tobytes() + b"".join(bytes([len(word)]) + word for word in words)
    path.write_bytes(body + blake3(body).digest())
    return blake3(body).hexdigest()


def read_rows(path):
    """(int8 rows, scale) of a table file."""
    data = path.read_bytes()
    assert blake3(data[:-32]).digest() == data[-32:], "the checksum does not match"
    fields = HEADER.unpack_from(data)
    assert fields[:2] == (MAGIC, VERSION)
    size, count, dimension, scale = fields[2:6]
    rows = np.frombuffer(data, np.int8, count * dimension, size).reshape(count, dimension)
    return rows, scale


def read_vocabulary(path):
    """The tokens of a table file, in the order of their ids."""
    data = path.read_bytes()
    fields = HEADER.unpack_from(data)
    assert fields[:2] == (MAGIC, VERSION)
    size, count, dimension = fields[2:5]
    tokens, at = [], size + count * dimension
    for _ in range(count):
        end = at + 1 + data[at]
        tokens.append(data[at + 1 : end].decode("utf-8"))
        at = end
    return tokens
