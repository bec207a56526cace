//! Products of 8-bit codes with 512-bit vectors.
//!
//! `vpdpbusd` multiplies unsigned by signed codes and adds four products to each of 16 sums, so a
//! load of a panel serves 16 outputs. Activations are shifted by 128, and the sums start at -128
//! times the sum of the weights, which takes the shift off again. Nothing saturates on the way.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32,
};

use super::{Multiply, ROWS, Sums, TILE, check, check_outer, dispatch};
use crate::minilm::file::{PANEL, PANELS, Weights};
use crate::minilm::forward::{self, Batch};
use crate::minilm::math::LANES;

/// Proof that this CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub(in crate::minilm) struct Avx512(());

impl Avx512 {
    /// The proof, if the CPU has all of them.
    pub(super) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        supported.then_some(Self(()))
    }

    /// See [`super::Kernel::run`].
    pub(super) fn run(self, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
        // SAFETY: a value of this type exists only where the CPU has these instructions.
        unsafe { run(self, weights, adapter, batch, out) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run(kernel: Avx512, weights: &Weights, adapter: &[f32], batch: &Batch, out: &mut [f32]) {
    forward::run(kernel, weights, adapter, batch, out);
}

impl Multiply for Avx512 {
    const TOKENS: usize = TILE;
    const FLIP: u8 = 0x80;

    #[inline(always)]
    fn tile(
        self,
        panels: [&[u8]; PANELS],
        offsets: &[i32; PANEL * PANELS],
        codes: &[&[u8]],
        sums: &mut Sums,
    ) {
        check(panels, codes, Self::TOKENS);
        // SAFETY: a value of this type exists only where the CPU has these instructions, and
        // `check` has compared the lengths.
        unsafe {
            dispatch!(codes.len(), product(panels, offsets, codes, sums), 1 2 3 4 5 6 7 8);
        }
    }

    #[inline(always)]
    fn outer(
        self,
        a: &[f32],
        a_row: usize,
        b: &[f32],
        b_row: usize,
        steps: usize,
    ) -> [[f32; LANES]; ROWS] {
        check_outer(a, a_row, b, b_row, steps);
        let mut sums = [[0.0; LANES]; ROWS];
        // SAFETY: a value of this type exists only where the CPU has these instructions, and
        // `check_outer` has checked the indexes.
        unsafe { outer(a, a_row, b, b_row, steps, &mut sums) };
        sums
    }
}

/// # Safety
/// `codes` are `M` tokens, and the lengths are those that [`check`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn product<const M: usize>(
    panels: [&[u8]; PANELS],
    offsets: &[i32; PANEL * PANELS],
    codes: &[&[u8]],
    sums: &mut Sums,
) {
    let zero = _mm512_setzero_si512();
    let start: [__m512i; PANELS] = std::array::from_fn(|panel| {
        // SAFETY: `offsets` holds 16 words for each panel.
        let sums = unsafe { _mm512_loadu_si512(offsets.as_ptr().add(panel * PANEL).cast()) };
        _mm512_sub_epi32(zero, _mm512_slli_epi32::<7>(sums))
    });
    let mut found = [start; M];
    let tokens: [*const u8; M] = std::array::from_fn(|token| codes[token].as_ptr());
    let [first, second] = panels.map(<[u8]>::as_ptr);
    for at in 0..panels[0].len() / (4 * PANEL) {
        // SAFETY: each panel has 64 bytes for this step, and each token has four.
        unsafe {
            let first = _mm512_loadu_si512(first.add(at * 4 * PANEL).cast());
            let second = _mm512_loadu_si512(second.add(at * 4 * PANEL).cast());
            for (found, token) in found.iter_mut().zip(tokens) {
                let four = _mm512_set1_epi32(token.add(at * 4).cast::<i32>().read_unaligned());
                found[0] = _mm512_dpbusd_epi32(found[0], four, first);
                found[1] = _mm512_dpbusd_epi32(found[1], four, second);
            }
        }
    }
    for (found, sums) in found.iter().zip(sums) {
        for (found, sums) in found.iter().zip(sums) {
            // SAFETY: `sums` holds 16 words.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *found) };
        }
    }
}

/// # Safety
/// The indexes are those that [`check_outer`] asks for, for the rows of `sums`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn outer(
    a: &[f32],
    a_row: usize,
    b: &[f32],
    b_row: usize,
    steps: usize,
    sums: &mut [[f32; LANES]; ROWS],
) {
    const VECTORS: usize = LANES / 16;
    let mut found: [[__m512; VECTORS]; ROWS] = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (a, b) = (a.as_ptr(), b.as_ptr());
    for step in 0..steps {
        // SAFETY: the caller has checked the indexes.
        unsafe {
            let b = b.add(step * b_row);
            let b: [__m512; VECTORS] = std::array::from_fn(|at| _mm512_loadu_ps(b.add(at * 16)));
            for (row, found) in found.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(row * a_row + step));
                for (found, b) in found.iter_mut().zip(b) {
                    *found = _mm512_add_ps(*found, _mm512_mul_ps(a, b));
                }
            }
        }
    }
    for (found, sums) in found.iter().zip(sums) {
        for (found, sums) in found.iter().zip(sums.chunks_exact_mut(16)) {
            // SAFETY: `sums` holds 16 floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *found) };
        }
    }
}
