//! Whether the sweeps have passed, and struck at, every access to shared memory that the code has.

use crate::SWEEP;
use libtest_mimic::Trial;
use proc_macro2::Span;
use ringpool::crash;
use ringpool_tests::proof::Proof;
use ringpool_tests::test_within;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

pub fn tests() -> Vec<Trial> {
    vec![test_within(SWEEP, "coverage_of_crash_points", coverage)]
}

/// Accesses that no sweep needs to pass, by file and function.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("ring/ready.rs", "repair", "positions that only corruption explains: see `corruption`"),
    ("arena/block.rs", "release_corrupt", "a word that only corruption explains: see `corruption`"),
    ("recovery/mod.rs", "renew_region", "words that only corruption explains: see `corruption`"),
    (
        "ring/requeue.rs",
        "claim",
        "a bit that is set behind the back of a claim: the models and loom come here",
    ),
];

/// An access in the source.
#[derive(Clone, Debug)]
struct Access {
    file: String,
    function: String,
    line: u32,
    column: u32,
}

/// Finds the calls that go through the layer: all that name an `Ordering`, futexes, and writes of slot bytes.
struct Finder {
    file: String,
    function: Vec<String>,
    found: Vec<Access>,
}

impl Finder {
    fn add(&mut self, span: Span) {
        let at = span.start();
        self.found.push(Access {
            file: self.file.clone(),
            function: self.function.last().cloned().unwrap_or_default(),
            line: at.line as u32,
            column: at.column as u32 + 1,
        });
    }
}

/// Whether an item is left out of the build that the sweeps run.
fn is_left_out(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = match &attribute.meta {
            syn::Meta::List(list) => list.tokens.to_string(),
            _ => String::new(),
        };
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && matches!(text.as_str(), "test" | "loom" | "all (test , loom)"))
    })
}

fn names_an_order(arguments: &syn::punctuated::Punctuated<syn::Expr, syn::token::Comma>) -> bool {
    arguments.iter().any(|argument| match argument {
        syn::Expr::Path(path) => {
            path.path.segments.len() == 2
                && path.path.segments.first().is_some_and(|first| first.ident == "Ordering")
        }
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_left_out(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_left_out(&item.attrs) {
            self.function.push(item.sig.ident.to_string());
            visit::visit_item_fn(self, item);
            self.function.pop();
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_left_out(&item.attrs) {
            self.function.push(item.sig.ident.to_string());
            visit::visit_impl_item_fn(self, item);
            self.function.pop();
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let of_slot = match &*call.receiver {
            syn::Expr::Field(field) => {
                matches!(&field.member, syn::Member::Named(name) if name == "args" || name == "inline")
            }
            _ => false,
        };
        if names_an_order(&call.args) || ((call.method == "fill" || call.method == "fill_words") && of_slot) {
            self.add(call.method.span());
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(path) = &*call.func {
            let names: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if matches!(names[..], ["fence"] | ["futex", "wait" | "wake" | "wait_low" | "wake_low"]) {
                self.add(call.span());
            }
        }
        visit::visit_expr_call(self, call);
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the engine's sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All accesses of the engine but those of `sync` itself, which stand for their callers.
fn accesses() -> Vec<Access> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        if file.starts_with("sync/")
            || file.starts_with("loom_tests")
            || file.starts_with("audit/")
            || file.starts_with("bin/")
            || file.starts_with("fuzz/")
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let parsed = syn::parse_file(&text).expect("Rust");
        let mut finder = Finder { file, function: Vec::new(), found: Vec::new() };
        finder.visit_file(&parsed);
        found.extend(finder.found);
    }
    found
}

fn coverage() {
    let noted: HashMap<u64, crash::Site> = crash::sites().into_iter().map(|site| (site.key, site)).collect();
    let accesses = accesses();
    let elsewhere = |access: &Access| {
        ELSEWHERE.iter().any(|(file, function, _)| {
            *file == access.file && [access.function.as_str(), "*"].contains(function)
        })
    };
    let (mut passed, mut struck, mut excused) = (0, 0, 0);
    let (mut missing, mut unstruck) = (Vec::new(), Vec::new());
    let mut known = std::collections::HashSet::new();
    for access in &accesses {
        let key = crash::site_key(&access.file, access.line, access.column);
        known.insert(key);
        let at = format!("{}:{}:{} in {}", access.file, access.line, access.column, access.function);
        match noted.get(&key) {
            None if elsewhere(access) => excused += 1,
            None => missing.push(at),
            Some(site) => {
                passed += 1;
                if site.blows > 0 {
                    struck += 1;
                } else {
                    unstruck.push(at);
                }
            }
        }
    }
    let unknown = noted.keys().filter(|key| !known.contains(key)).count();
    println!(
        "crash points: {} in the code, {passed} passed, {struck} struck, {excused} not needed, {} not passed",
        accesses.len(),
        missing.len()
    );
    unstruck.iter().for_each(|at| println!("passed, not struck: {at}"));
    missing.iter().for_each(|at| println!("not passed: {at}"));
    assert_eq!(unknown, 0, "accesses that this test does not find in the source");
    // A part of the tests alone says nothing about the whole.
    if std::env::args().len() > 1 && std::env::args().any(|argument| argument == "--exact") {
        return;
    }
    assert!(missing.is_empty(), "{} accesses were never passed", missing.len());
    let proof = Proof {
        runs: accesses.len() as u64,
        kills: struck,
        ..Proof::of("crash points of the code, and struck")
    };
    proof.report();
}
