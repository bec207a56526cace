//! What only the machine can tell: bytes allocated, and how fast it reads.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes that the allocator of the C library has given out, or `None` where it does not tell. Rust
/// code and C++ code alike allocate from it, so all contenders are weighed on one scale.
pub(crate) fn allocated() -> Option<usize> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the call takes nothing and returns plain numbers.
        let told = unsafe { libc::mallinfo2() };
        Some(told.uordblks + told.hblkhd)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Bytes that one thread reads in a second from a working set of this size, which it has read before:
/// the best of several rounds, as whatever disturbs a round makes it slower.
pub(crate) fn read_bandwidth(bytes: usize) -> f64 {
    /// Read in one round at least, so that the clock's own cost is nothing.
    const ROUND: usize = 64 << 20;
    let words = vec![1u64; (bytes / 8).max(64)];
    let size = words.len() * 8;
    let passes = (ROUND / size).max(1);
    let mut best = Duration::MAX;
    for _ in 0..12 {
        let start = Instant::now();
        for _ in 0..passes {
            black_box(sum(black_box(&words)));
        }
        best = best.min(start.elapsed());
    }
    (size * passes) as f64 / best.as_secs_f64()
}

fn sum(words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions.
            return unsafe { sum_avx512(words) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { sum_avx2(words) };
        }
    }
    sum_plain(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(words: &[u64]) -> u64 {
    sum_plain(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(words: &[u64]) -> u64 {
    sum_plain(words)
}

/// In many sums, so that no addition waits for another and reading is all that takes time.
#[inline(always)]
fn sum_plain(words: &[u64]) -> u64 {
    let mut sums = [0u64; 64];
    let (parts, rest) = words.as_chunks::<64>();
    for part in parts {
        for (sum, word) in sums.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let sum = |words: &[u64]| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
    sum(&sums).wrapping_add(sum(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&words), 499_500);
        assert!(read_bandwidth(1 << 16) > 0.0);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn allocated_bytes_grow_by_what_is_allocated() {
        let before = allocated().unwrap();
        let held = black_box(vec![1u8; 32 << 20]);
        let after = allocated().unwrap();
        // Other tests of this process allocate meanwhile.
        assert!(after >= before + (24 << 20), "{before} {after}");
        drop(held);
    }
}
