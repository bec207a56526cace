//! Compiles the bridge to hnswlib where its headers are found.
//!
//! They are looked for in `HNSWLIB_INCLUDE` and the usual folders of a system. The compiler may use
//! every instruction of this machine, so that the peer is measured at its best; what is built here is
//! for this machine only.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(hnswlib)");
    println!("cargo::rerun-if-env-changed=HNSWLIB_INCLUDE");
    println!("cargo::rerun-if-changed=shim/hnswlib.cc");
    #[cfg(feature = "peers")]
    hnswlib();
}

#[cfg(feature = "peers")]
fn hnswlib() {
    let named = std::env::var("HNSWLIB_INCLUDE").ok();
    let usual = [
        "/usr/include",
        "/usr/local/include",
        "/opt/homebrew/include",
    ];
    let found = named.as_deref().into_iter().chain(usual).find(|folder| {
        std::path::Path::new(folder)
            .join("hnswlib/hnswlib.h")
            .is_file()
    });
    let Some(folder) = found else {
        return;
    };
    println!("cargo::rerun-if-changed={folder}/hnswlib/hnswalg.h");
    let built = cc::Build::new()
        .cpp(true)
        .std("c++14")
        .file("shim/hnswlib.cc")
        .include(folder)
        .opt_level(3)
        .flag_if_supported("-march=native")
        .warnings(false)
        .try_compile("askonce_hnswlib");
    match built {
        Ok(()) => {
            println!("cargo::rustc-cfg=hnswlib");
            println!("cargo::rustc-env=HNSWLIB_FOLDER={folder}");
        }
        Err(error) => println!("cargo::warning=hnswlib is left out: {error}"),
    }
}
