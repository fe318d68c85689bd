//! The committed header is the one that the sources make.

use std::path::{Path, PathBuf};

const UPDATE: &str = "UPDATE_HEADER=1 cargo test -p ringpool-ffi --test header";

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> PathBuf {
    here().join("../include/ringpool.h")
}

/// The header as it should be.
fn generate() -> String {
    let mut config = cbindgen::Config::from_file(here().join("cbindgen.toml")).expect("cbindgen.toml");
    config.header = Some(std::fs::read_to_string(here().join("src/head.h")).expect("src/head.h"));
    let bindings = cbindgen::Builder::new().with_crate(here()).with_config(config).generate();
    let mut text = Vec::new();
    bindings.expect("the sources can be read").write(&mut text);
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn is_up_to_date() {
    let right = generate();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(committed(), right).expect("include/ringpool.h can be written");
        return;
    }
    let now = std::fs::read_to_string(committed()).expect("include/ringpool.h");
    let difference = now.lines().zip(right.lines()).position(|(now, right)| now != right);
    assert!(
        now == right,
        "include/ringpool.h is not what ffi/src makes, from line {} on; to update it: {UPDATE}",
        difference.map_or(now.lines().count().min(right.lines().count()), |line| line) + 1
    );
}

#[test]
fn everything_is_documented() {
    let text = std::fs::read_to_string(committed()).expect("include/ringpool.h");
    let mut before = "";
    for line in text.lines() {
        let item = line.starts_with("rp_")
            || line.starts_with("void rp_")
            || line.starts_with("const ")
            || line.starts_with("typedef struct")
            || line.starts_with("#define RP_")
            || line.starts_with("    RP_")
            || line.starts_with("bool rp_");
        assert!(!item || before.trim_end().ends_with("*/"), "no documentation: {line}");
        before = line;
    }
}
