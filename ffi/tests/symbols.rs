//! What the shared library exports, all of it and nothing else.

use std::path::PathBuf;
use std::process::Command;

/// The functions of the interface, in the order of `sort`. To add one is to add it here; to remove one is a new
/// `RP_ABI_VERSION`.
const SYMBOLS: &[&str] = &[
    "rp_abi_version",
    "rp_apply",
    "rp_apply_async",
    "rp_apply_buffer_async",
    "rp_apply_into",
    "rp_async_cancel",
    "rp_async_free",
    "rp_async_get",
    "rp_async_ready",
    "rp_async_results",
    "rp_async_successful",
    "rp_async_wait",
    "rp_buffer_alloc",
    "rp_buffer_free",
    "rp_imap",
    "rp_imap_unordered",
    "rp_is_worker",
    "rp_items_next",
    "rp_iter_free",
    "rp_iter_next",
    "rp_last_error",
    "rp_map",
    "rp_map_array",
    "rp_map_array_async",
    "rp_map_async",
    "rp_map_buffer_async",
    "rp_options_init",
    "rp_output_commit",
    "rp_output_fail",
    "rp_output_reserve",
    "rp_output_write",
    "rp_pool_close",
    "rp_pool_free",
    "rp_pool_join",
    "rp_pool_new",
    "rp_pool_processes",
    "rp_pool_terminate",
    "rp_pool_worker_pids",
    "rp_queue_free",
    "rp_queue_new",
    "rp_queue_submit",
    "rp_queue_take",
    "rp_register",
    "rp_register_array",
    "rp_result_free",
    "rp_results_count",
    "rp_results_free",
    "rp_results_get",
    "rp_results_run",
    "rp_results_tag",
    "rp_status_string",
    "rp_worker_attach",
    "rp_worker_main_if_worker",
];

/// The library, built: a test cannot be linked with one for C, so cargo does not build it for its sake.
fn library() -> PathBuf {
    let build = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "ringpool-ffi"]).status();
    assert!(build.expect("cargo").success());
    let test = std::env::current_exe().expect("this program's file");
    let target = test.ancestors().nth(3).expect("deps is in the profile's directory");
    target.join("debug/libringpool.so")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(library()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {:?}: {}",
        library(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn are_those_of_the_interface() {
    let text = output("nm", &["-D", "--defined-only", "-f", "posix"]);
    let mut exported: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    exported.sort_unstable();
    assert_eq!(exported, SYMBOLS);
    assert!(SYMBOLS.len() < 60 && SYMBOLS.iter().all(|symbol| symbol.starts_with("rp_")));
}

#[test]
fn the_header_declares_all_of_them() {
    let header = include_str!("../../include/ringpool.h");
    for symbol in SYMBOLS {
        let declared = header.lines().any(|line| {
            !line.starts_with(' ') && line.contains(&format!("{symbol}(")) && !line.starts_with("typedef")
        });
        assert!(declared, "{symbol}");
    }
}

#[test]
fn the_soname_has_the_number_of_the_interface() {
    let header = include_str!("../../include/ringpool.h");
    let number = header.lines().find_map(|line| line.strip_prefix("#define RP_ABI_VERSION "));
    let text = output("readelf", &["-d"]);
    assert!(text.contains(&format!("[libringpool.so.{}]", number.expect("a version"))), "{text}");
}
