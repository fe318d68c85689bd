//! Gives the shared library the name under which programs look for it.

fn main() {
    // The number is that of `RP_ABI_VERSION`.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libringpool.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
