//! Portable dot products: the twin that the other kernels are tested against.
//!
//! Sixteen sums are kept side by side, so the compiler may use whatever vectors the target has
//! without changing the order of the additions.

use super::{CodeLine, LANES as CODES, Near, RowLine, prefetch_ahead};

const LANES: usize = 16;

/// See [`super::Kernel::dot_rows`].
pub(super) fn dot_rows(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot(query, row);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + tail
}

/// See [`super::Kernel::dot_codes`].
pub(super) fn dot_codes(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| i32::from(x) * i32::from(y))
        .sum()
}

/// See [`super::Kernel::near_codes`]; positions count from `start`.
pub(super) fn near_codes(
    query: &[u64],
    blocks: &[CodeLine],
    radius: u32,
    start: u32,
    out: &mut Vec<Near>,
) {
    let starts = (start..).step_by(CODES);
    for (start, block) in starts.zip(blocks.chunks_exact(query.len())) {
        let mut distances = [0u32; CODES];
        for (word, line) in query.iter().zip(block) {
            for (distance, code) in distances.iter_mut().zip(line.0) {
                *distance += (word ^ code).count_ones();
            }
        }
        for (position, distance) in (start..).zip(distances) {
            if distance <= radius {
                out.push(Near { position, distance });
            }
        }
    }
}

/// See [`super::Kernel::dot_lines`].
pub(super) fn dot_lines(query: &[RowLine], rows: &[RowLine], scores: &mut [i32]) {
    for (score, row) in scores.iter_mut().zip(rows.chunks_exact(query.len())) {
        *score = dot_row(query, row);
    }
}

/// See [`super::Kernel::residual_code`].
pub(super) fn residual_code(vector: &[f32], center: &[RowLine], scale: f32, code: &mut [u64]) {
    let parts = vector.as_chunks::<64>().0.iter();
    for ((part, center), word) in parts.zip(center).zip(code) {
        *word = 0;
        for (bit, (x, &c)) in part.iter().zip(&center.0).enumerate() {
            *word |= u64::from(*x < f32::from(c) * scale) << bit;
        }
    }
}

/// See [`super::Kernel::dot_lines_at`].
pub(super) fn dot_lines_at(query: &[RowLine], rows: &[RowLine], at: &[u32], scores: &mut [i32]) {
    let length = query.len();
    for (i, (score, &position)) in scores.iter_mut().zip(at).enumerate() {
        prefetch_ahead(rows, length, at, i);
        *score = dot_row(query, &rows[position as usize * length..][..length]);
    }
}

fn dot_row(a: &[RowLine], b: &[RowLine]) -> i32 {
    a.iter().zip(b).map(|(x, y)| dot_codes(&x.0, &y.0)).sum()
}

/// See [`super::Kernel::hadamard`].
pub(super) fn hadamard(vector: &mut [f32], scale: f32) {
    let (groups, _) = vector.as_chunks_mut::<8>();
    for group in groups {
        let [a, b, c, d, e, f, g, h] = *group;
        let [a, b, c, d, e, f, g, h] = [a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h];
        let [a, b, c, d, e, f, g, h] = [a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h];
        let sums = [a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h];
        *group = sums.map(|x| x * scale);
    }
    let mut half = 8;
    while half < vector.len() {
        for pair in vector.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// See [`super::Kernel::planes`]. Inlined, so that each
/// instruction set has it in its own words.
#[inline(always)]
pub(super) fn planes(vector: &[f32], inverse: f32, high: &mut [RowLine], low: &mut [RowLine]) {
    let parts = vector.as_chunks::<64>().0.iter();
    for ((part, high), low) in parts.zip(high).zip(low) {
        let steps = part.map(|x| round(x * inverse));
        let rounded = steps.map(|steps| (steps + 128) >> 8);
        high.0 = rounded.map(|high| high as i8);
        for ((low, steps), high) in low.0.iter_mut().zip(steps).zip(rounded) {
            *low = (steps - (high << 8)) as i8;
        }
    }
}

/// Nearest integer, ties to even, of a number below 2^22: by adding what leaves no room for a
/// fraction. `f32::round` is a call into the C library where the oldest instructions are all that
/// may be used.
#[inline(always)]
pub(super) fn round(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC)
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .cast_signed()
}

/// Largest size of a component. In sixteen lanes: one after the other, each would wait for the last.
pub(super) fn largest(vector: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, tail) = vector.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = larger(*lane, x.abs());
        }
    }
    let tail = tail.iter().map(|x| x.abs());
    lanes.into_iter().chain(tail).fold(0.0, larger)
}

// The following are inlined, as `planes` is. The order of their additions is part of what they are:
// each instruction set gives the same bits.

/// See [`super::Kernel::sum_of_products`].
#[inline(always)]
pub(super) fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + tail
}

/// See [`super::Kernel::center_product`].
#[inline(always)]
pub(super) fn center_product(vector: &[f32], center: &[RowLine]) -> f32 {
    let parts = vector.as_chunks::<64>().0.iter().zip(center);
    parts
        .map(|(part, center)| sum_of_products(part, &center.0.map(f32::from)))
        .sum()
}

/// See [`super::Kernel::add`].
#[inline(always)]
pub(super) fn add(vector: &[f32], sum: &mut [f32]) {
    for (sum, x) in sum.iter_mut().zip(vector) {
        *sum += x;
    }
}

/// See [`super::Kernel::widen`].
#[inline(always)]
pub(super) fn widen(row: &[RowLine], out: &mut [f32]) {
    for (part, line) in out.as_chunks_mut::<64>().0.iter_mut().zip(row) {
        *part = line.0.map(f32::from);
    }
}

/// See [`super::Kernel::squared_length`].
#[inline(always)]
pub(super) fn squared_length(vector: &[f32]) -> f64 {
    let (blocks, tail) = vector.as_chunks::<8>();
    let mut lanes = [0.0f64; 8];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    let rest: f64 = tail.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    lanes.iter().sum::<f64>() + rest
}
