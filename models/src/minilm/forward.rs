//! The forward pass of a BERT encoder with 8-bit weights, mean pooling and the adapter.
//!
//! Activations are rounded to 8 bits before each linear map, with a scale of their own per token;
//! everything between the maps is f32. A token is treated alike whatever stands beside it in a
//! tile, and attention stays within a text: so a row does not depend on the texts of its batch.
//!
//! Attention is computed for some queries against all keys at once, from keys that lie transposed,
//! so that its inner loops run over neighbours; the feed-forward part is computed for some tokens at
//! a time, so that what lies between its two maps stays in the second-level cache.

use super::file::{HEAD, Linear, Norm, PANEL, PANELS, Weights};
use super::kernel::{Multiply, ROWS, Sums, TILE};
use super::math::{LANES, exp, folded, gelu, larger, rounded};

/// Added to the variance of a layer normalisation, as the source model was trained with.
const EPSILON: f32 = 1e-12;

/// Tokens that go through the feed-forward part together.
const FEED: usize = 64;

/// Token ids of some texts, one after the other, with start and end tokens.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) ids: Vec<u32>,
    /// Where each text ends.
    pub(super) ends: Vec<usize>,
}

/// Writes the output of `adapter`, `width` outputs of each input, for each text of the batch to `out`:
/// `width` floats each, of any length.
///
/// # Panics
/// If `out` is not `width` floats for each text, `adapter` is not square, an id is not in the vocabulary, or a text has no
/// token or more than `positions`.
#[inline(always)]
pub(super) fn run<K: Multiply>(
    kernel: K,
    weights: &Weights,
    adapter: &[f32],
    batch: &Batch,
    out: &mut [f32],
) {
    let width = weights.width;
    let tokens = batch.ids.len();
    assert_eq!(out.len(), batch.ends.len() * width, "one row per text");
    assert_eq!(adapter.len(), width * width, "an adapter of this width");

    let mut x = embedded(weights, batch);
    normalise(&mut x, &weights.norm);
    let mut codes = Codes::new(tokens * width.max(weights.inner), tokens);
    // Attention reads a block of queries past the last token, and uses nothing of them.
    let mut qkv = vec![0.0; tokens * 3 * width + ROWS * HEAD];
    let mut mixed = vec![0.0; tokens * width];
    let mut added = vec![0.0; tokens * width];
    let mut wide = vec![0.0; tokens.min(FEED) * weights.inner];
    let mut attention = Attention::default();
    for layer in &weights.layers {
        codes.fill::<K>(&x, width);
        let blocks = &mut qkv[..tokens * 3 * width];
        apply::<K, HEADS>(kernel, &layer.qkv, &codes, blocks);
        let mut start = 0;
        for &end in &batch.ends {
            let mixed = &mut mixed[start * width..end * width];
            attention.mix(kernel, &qkv, tokens, start, mixed, width);
            start = end;
        }
        codes.fill::<K>(&mixed, width);
        apply::<K, PLAIN>(kernel, &layer.mix, &codes, &mut added);
        add(&mut x, &added);
        normalise(&mut x, &layer.mix_norm);

        for x in x.chunks_mut(FEED * width) {
            let tokens = x.len() / width;
            let wide = &mut wide[..tokens * weights.inner];
            let added = &mut added[..x.len()];
            codes.fill::<K>(x, width);
            apply::<K, GELU>(kernel, &layer.up, &codes, wide);
            codes.fill::<K>(wide, weights.inner);
            apply::<K, PLAIN>(kernel, &layer.down, &codes, added);
            add(x, added);
            normalise(x, &layer.down_norm);
        }
    }

    let mut start = 0;
    for (&end, out) in batch.ends.iter().zip(out.chunks_exact_mut(width)) {
        let mut mean = vec![0.0; width];
        for token in x[start * width..end * width].chunks_exact(width) {
            add(&mut mean, token);
        }
        let share = 1.0 / (end - start) as f32;
        out.fill(0.0);
        for (mean, outputs) in mean.iter().zip(adapter.chunks_exact(width)) {
            let mean = mean * share;
            for (out, weight) in out.iter_mut().zip(outputs) {
                *out += mean * weight;
            }
        }
        start = end;
    }
}

/// The sum of each token's and its place's embedding.
#[inline(always)]
fn embedded(weights: &Weights, batch: &Batch) -> Vec<f32> {
    let width = weights.width;
    let mut x = Vec::with_capacity(batch.ids.len() * width);
    let mut start = 0;
    for &end in &batch.ends {
        let places = weights.places.chunks_exact(width);
        let ids = &batch.ids[start..end];
        assert!((1..=places.len()).contains(&ids.len()), "tokens of a text");
        for (&id, place) in ids.iter().zip(places) {
            let id = id as usize;
            let scale = weights.word_scales[id];
            let word = &weights.words[id * width..(id + 1) * width];
            x.extend(
                word.iter()
                    .zip(place)
                    .map(|(&code, place)| f32::from(code.cast_signed()) * scale + place),
            );
        }
        start = end;
    }
    x
}

#[inline(always)]
fn add(x: &mut [f32], added: &[f32]) {
    for (x, added) in x.iter_mut().zip(added) {
        *x += added;
    }
}

/// Brings each token to mean 0 and variance 1, then applies gain and bias.
#[inline(always)]
fn normalise(x: &mut [f32], norm: &Norm) {
    let width = norm.gain.len();
    let share = 1.0 / width as f32;
    for x in x.chunks_exact_mut(width) {
        let mut sums = [0.0; LANES];
        for x in x.as_chunks::<LANES>().0 {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += x;
            }
        }
        let mean = folded(sums) * share;
        let mut squares = [0.0; LANES];
        for x in x.as_chunks::<LANES>().0 {
            for (square, x) in squares.iter_mut().zip(x) {
                let x = x - mean;
                *square += x * x;
            }
        }
        let scale = 1.0 / (folded(squares) * share + EPSILON).sqrt();
        for ((x, gain), bias) in x.iter_mut().zip(&norm.gain).zip(&norm.bias) {
            *x = (*x - mean) * scale * gain + bias;
        }
    }
}

/// Activations in 8 bits.
struct Codes {
    bytes: Vec<u8>,
    /// What 1 stands for in each token.
    scales: Vec<f32>,
    inputs: usize,
    tokens: usize,
}

impl Codes {
    /// Room for so many codes of so many tokens.
    fn new(codes: usize, tokens: usize) -> Self {
        Self {
            bytes: vec![0; codes],
            scales: vec![0.0; tokens],
            inputs: 0,
            tokens: 0,
        }
    }

    /// Rounds the tokens of `x`, of `inputs` floats each.
    #[inline(always)]
    fn fill<K: Multiply>(&mut self, x: &[f32], inputs: usize) {
        self.inputs = inputs;
        self.tokens = x.len() / inputs;
        let rows = x
            .chunks_exact(inputs)
            .zip(self.bytes.chunks_exact_mut(inputs));
        for ((x, codes), scale) in rows.zip(&mut self.scales) {
            let mut most = [0.0_f32; LANES];
            for x in x.as_chunks::<LANES>().0 {
                for (most, x) in most.iter_mut().zip(x) {
                    *most = larger(x.abs(), *most);
                }
            }
            let most = most.iter().fold(1e-9, |a, &b| larger(b, a));
            *scale = most / 127.0;
            let inverse = 127.0 / most;
            for (code, x) in codes.iter_mut().zip(x) {
                *code = rounded(x * inverse) ^ K::FLIP;
            }
        }
    }

    fn token(&self, at: usize) -> &[u8] {
        &self.bytes[at * self.inputs..(at + 1) * self.inputs]
    }
}

/// Outputs of a linear map that are computed together.
const STEP: usize = PANEL * PANELS;
const _: () = assert!(STEP == HEAD, "a block of outputs is a head");

/// What becomes of a linear map's outputs: rows of tokens.
const PLAIN: u8 = 0;
/// Rows of tokens, through [`gelu`].
const GELU: u8 = 1;
/// A block of tokens for every [`HEAD`] outputs, block after block.
const HEADS: u8 = 2;

/// Writes the linear map of each token to `out`.
#[inline(always)]
fn apply<K: Multiply, const FORM: u8>(kernel: K, linear: &Linear, codes: &Codes, out: &mut [f32]) {
    let (inputs, outputs) = (linear.inputs, linear.outputs);
    assert_eq!(codes.inputs, inputs, "codes are for this map");
    assert_eq!(out.len(), codes.tokens * outputs, "one row per token");
    let mut sums = Sums::default();
    let (offsets, _) = linear.sums.as_chunks::<STEP>();
    let (scales, _) = linear.scales.as_chunks::<STEP>();
    let (bias, _) = linear.bias.as_chunks::<STEP>();
    let panels = linear.codes.chunks_exact(PANELS * PANEL * inputs);
    for (step, panels) in panels.enumerate() {
        let (first, second) = panels.split_at(PANEL * inputs);
        let mut token = 0;
        while token < codes.tokens {
            // Tiles as equal as can be: a tile of one token costs half of a tile of eight.
            let left = codes.tokens - token;
            let tile = left.div_ceil(left.div_ceil(K::TOKENS));
            let mut rows: [&[u8]; TILE] = [&[]; TILE];
            for (at, row) in rows[..tile].iter_mut().enumerate() {
                *row = codes.token(token + at);
            }
            kernel.tile([first, second], &offsets[step], &rows[..tile], &mut sums);
            for (at, sums) in sums[..tile].iter().enumerate() {
                let scale = codes.scales[token + at];
                let start = match FORM {
                    HEADS => (step * codes.tokens + token + at) * STEP,
                    _ => (token + at) * outputs + step * STEP,
                };
                let out = &mut out[start..start + STEP];
                let sums = sums.as_flattened();
                for i in 0..STEP {
                    let value = sums[i] as f32 * scale * scales[step][i] + bias[step][i];
                    out[i] = if FORM == GELU { gelu(value) } else { value };
                }
            }
            token += tile;
        }
    }
}

/// Working memory of attention, for one head of one text at a time.
#[derive(Default)]
struct Attention {
    /// Key components: all tokens of the first, of the second, and so on.
    keys: Vec<f32>,
    /// Of [`ROWS`] queries with all keys.
    weights: Vec<f32>,
}

impl Attention {
    /// Softmax attention of the text that begins at token `start`. `qkv` holds, head by head, the
    /// queries of all `total` tokens of the batch, then their keys, then their values; `mixed` takes
    /// a row for each token of the text.
    #[inline(always)]
    fn mix<K: Multiply>(
        &mut self,
        kernel: K,
        qkv: &[f32],
        total: usize,
        start: usize,
        mixed: &mut [f32],
        width: usize,
    ) {
        let tokens = mixed.len() / width;
        let heads = width / HEAD;
        let padded = tokens.next_multiple_of(LANES);
        // Not a power of two, so that components do not compete for the same place in the cache.
        let stride = padded + LANES;
        self.keys.clear();
        self.keys.resize(stride * HEAD, 0.0);
        self.weights.clear();
        self.weights.resize(ROWS * padded, 0.0);
        for head in 0..heads {
            let from = |part: usize| &qkv[((part * heads + head) * total + start) * HEAD..];
            let (queries, keys, values) = (from(0), from(1), from(2));
            let (keys, _) = keys[..tokens * HEAD].as_chunks::<HEAD>();
            for (token, key) in keys.iter().enumerate() {
                let places = self.keys[token..].iter_mut().step_by(stride);
                for (place, key) in places.zip(key) {
                    *place = *key;
                }
            }
            for first in (0..tokens).step_by(ROWS) {
                self.score(kernel, &queries[first * HEAD..], stride, padded);
                let sums = self.exponentials(tokens, padded);
                let found = self.combine(kernel, values, tokens, padded);
                let rows = mixed[first * width..].chunks_mut(width);
                for ((row, found), sum) in rows.zip(&found).zip(sums) {
                    let inverse = 1.0 / sum;
                    let row = &mut row[head * HEAD..][..HEAD];
                    for (mixed, found) in row.iter_mut().zip(found) {
                        *mixed = found * inverse;
                    }
                }
            }
        }
    }

    /// Dot products of the first queries with all keys.
    #[inline(always)]
    fn score<K: Multiply>(&mut self, kernel: K, queries: &[f32], stride: usize, padded: usize) {
        for block in (0..padded).step_by(LANES) {
            let sums = kernel.outer(queries, HEAD, &self.keys[block..], stride, HEAD);
            for (at, sums) in sums.iter().enumerate() {
                self.weights[at * padded + block..][..LANES].copy_from_slice(sums);
            }
        }
    }

    /// Turns scores into exponentials of their scaled distance to the largest; returns the sum of
    /// each query's.
    #[inline(always)]
    fn exponentials(&mut self, tokens: usize, padded: usize) -> [f32; ROWS] {
        let scale = 1.0 / (HEAD as f32).sqrt();
        let mut sums = [0.0; ROWS];
        for (weights, sum) in self.weights.chunks_exact_mut(padded).zip(&mut sums) {
            weights[tokens..].fill(f32::MIN);
            let mut most = [f32::MIN; LANES];
            for weights in weights.as_chunks::<LANES>().0 {
                for (most, weight) in most.iter_mut().zip(weights) {
                    *most = larger(*weight, *most);
                }
            }
            let most = most.iter().fold(f32::MIN, |a, &b| larger(b, a));
            for weight in weights.iter_mut() {
                *weight = exp((*weight - most) * scale);
            }
            weights[tokens..].fill(0.0);
            let mut lanes = [0.0; LANES];
            for weights in weights.as_chunks::<LANES>().0 {
                for (lane, weight) in lanes.iter_mut().zip(weights) {
                    *lane += weight;
                }
            }
            *sum = folded(lanes);
        }
        sums
    }

    /// Sums of the values under the weights of each query.
    #[inline(always)]
    fn combine<K: Multiply>(
        &self,
        kernel: K,
        values: &[f32],
        tokens: usize,
        padded: usize,
    ) -> [[f32; HEAD]; ROWS] {
        let mut found = [[0.0_f32; HEAD]; ROWS];
        for block in (0..HEAD).step_by(LANES) {
            let sums = kernel.outer(&self.weights, padded, &values[block..], HEAD, tokens);
            for (found, sums) in found.iter_mut().zip(&sums) {
                found[block..block + LANES].copy_from_slice(sums);
            }
        }
        found
    }
}
