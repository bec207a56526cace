//! Finds out, for feature `faiss`, which instructions the compiler of FAISS may use.
//!
//! FAISS is compiled for the instruction set that its C++ flags name, and stops a process on a CPU
//! that lacks it. So the compiler is asked, with the very flags that FAISS gets, and the engine
//! compares its answer with the CPU when it starts.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "faiss")]
    faiss::tell_instructions();
}

#[cfg(feature = "faiss")]
mod faiss {
    use std::env;

    /// What a compiler defines when it may use an instruction set, and the name that the standard
    /// library of Rust has for it. Those that a compiler never chooses by itself are left out.
    const INSTRUCTIONS: [(&str, &str); 30] = [
        ("__SSE3__", "sse3"),
        ("__SSSE3__", "ssse3"),
        ("__SSE4_1__", "sse4.1"),
        ("__SSE4_2__", "sse4.2"),
        ("__POPCNT__", "popcnt"),
        ("__AVX__", "avx"),
        ("__AVX2__", "avx2"),
        ("__FMA__", "fma"),
        ("__F16C__", "f16c"),
        ("__BMI__", "bmi1"),
        ("__BMI2__", "bmi2"),
        ("__LZCNT__", "lzcnt"),
        ("__MOVBE__", "movbe"),
        ("__AVX512F__", "avx512f"),
        ("__AVX512CD__", "avx512cd"),
        ("__AVX512BW__", "avx512bw"),
        ("__AVX512DQ__", "avx512dq"),
        ("__AVX512VL__", "avx512vl"),
        ("__AVX512VNNI__", "avx512vnni"),
        ("__AVX512IFMA__", "avx512ifma"),
        ("__AVX512VBMI__", "avx512vbmi"),
        ("__AVX512VBMI2__", "avx512vbmi2"),
        ("__AVX512BITALG__", "avx512bitalg"),
        ("__AVX512VPOPCNTDQ__", "avx512vpopcntdq"),
        ("__AVX512BF16__", "avx512bf16"),
        ("__AVX512FP16__", "avx512fp16"),
        ("__GFNI__", "gfni"),
        ("__VAES__", "vaes"),
        ("__VPCLMULQDQ__", "vpclmulqdq"),
        ("__ARM_FEATURE_SVE", "sve"),
    ];

    pub(super) fn tell_instructions() {
        let found = defined().unwrap_or_else(|| {
            println!(
                "cargo::warning=the C++ compiler could not be asked for its instruction set; \
                 FAISS will not check the CPU"
            );
            Vec::new()
        });
        let target = env::var("TARGET").unwrap_or_default();
        if target.starts_with("x86_64") && !found.contains(&"avx2") {
            let variable = target.replace(['-', '.'], "_");
            println!(
                "cargo::warning=FAISS is compiled without AVX2 and will be several times slower; \
                 set CXXFLAGS_{variable} = \"-march=x86-64-v3\" under [env] in .cargo/config.toml, \
                 then run `cargo clean -p faiss-sys`"
            );
        }
        println!(
            "cargo::rustc-env=ASKONCE_FAISS_INSTRUCTIONS={}",
            found.join(",")
        );
    }

    /// The instruction sets that the compiler may use under the flags of the environment.
    fn defined() -> Option<Vec<&'static str>> {
        // The same crate, and so the same variables, by which faiss-sys finds compiler and flags; it
        // also tells cargo which variables those are.
        let compiler = cc::Build::new()
            .cpp(true)
            .cargo_warnings(false)
            .try_get_compiler()
            .ok()?;
        let output = compiler
            .to_command()
            .args(["-dM", "-E", "-x", "c++", "/dev/null"])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let macros = String::from_utf8(output.stdout).ok()?;
        let is_defined = |name: &str| {
            macros
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(name))
        };
        let found = INSTRUCTIONS.iter().filter(|(name, _)| is_defined(name));
        Some(found.map(|&(_, feature)| feature).collect())
    }
}
