//! `cargo xtask install --prefix DIR`: the C library, as a C compiler finds it.

use crate::run::{Job, cargo, root};
use std::path::{Path, PathBuf};

/// What a program needs that is linked with `libringpool.a`: what `rustc --print native-static-libs` says.
const PRIVATE: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";
/// The soname's number: `RP_ABI_VERSION`.
const ABI: &str = "1";

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |directory| root().join(directory))
}

fn io<T>(what: &Path, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", what.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    // Not written over: a program may run it.
    let _ = std::fs::remove_file(to);
    io(from, std::fs::copy(from, to)).map(drop)
}

fn link(to: &str, at: &Path) -> Result<(), String> {
    let _ = std::fs::remove_file(at);
    io(at, std::os::unix::fs::symlink(to, at))
}

/// Builds the library and puts it, the header and `ringpool.pc` under `prefix`.
pub fn install(job: &Job, prefix: &Path) -> Result<(), String> {
    job.run(cargo("build --profile clib --package ringpool-ffi"))?;
    let version = env!("CARGO_PKG_VERSION");
    io(prefix, std::fs::create_dir_all(prefix))?;
    let prefix = io(prefix, prefix.canonicalize())?;
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    for directory in [&include, &lib.join("pkgconfig")] {
        io(directory, std::fs::create_dir_all(directory))?;
    }
    let built = target().join("clib");
    let name = format!("libringpool.so.{version}");
    let soname = format!("libringpool.so.{ABI}");
    copy(&root().join("include/ringpool.h"), &include.join("ringpool.h"))?;
    copy(&built.join("libringpool.so"), &lib.join(&name))?;
    link(&name, &lib.join(&soname))?;
    link(&soname, &lib.join("libringpool.so"))?;
    copy(&built.join("libringpool.a"), &lib.join("libringpool.a"))?;
    let template = root().join("ffi/ringpool.pc.in");
    let text = io(&template, std::fs::read_to_string(&template))?;
    let text = text
        .replace("@prefix@", &prefix.display().to_string())
        .replace("@version@", version)
        .replace("@private@", PRIVATE);
    let card = lib.join("pkgconfig/ringpool.pc");
    io(&card, std::fs::write(&card, text))?;
    println!("installed under {}", prefix.display());
    Ok(())
}
