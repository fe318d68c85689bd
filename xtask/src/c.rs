//! Programs in C: compiled as C and as C++, linked with the shared and the static library, and run.

use crate::install::{install, target};
use crate::run::{Cmd, Job, cargo, program, root};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long each program may run.
const LIMIT: Duration = Duration::from_secs(120);
const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// A way to make and run all programs.
struct Way {
    name: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
    shared: bool,
    /// Set when they are run.
    environment: &'static [(&'static str, &'static str)],
}

/// Tests look at how workers end, so AddressSanitizer leaves their signals alone.
const ASAN: &[(&str, &str)] = &[(
    "ASAN_OPTIONS",
    "detect_leaks=1:handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0",
)];

const WAYS: &[Way] = &[
    Way { name: "c-shared", compiler: "cc", flags: &["-std=c11"], shared: true, environment: &[] },
    Way { name: "c-static", compiler: "cc", flags: &["-std=c11"], shared: false, environment: &[] },
    Way {
        name: "c++-shared",
        compiler: "c++",
        flags: &["-std=c++17", "-x", "c++"],
        shared: true,
        environment: &[],
    },
    Way {
        name: "c++-static",
        compiler: "c++",
        flags: &["-std=c++17", "-x", "c++"],
        shared: false,
        environment: &[],
    },
    Way {
        name: "c-asan",
        compiler: "cc",
        flags: &["-std=c11", "-fsanitize=address", "-fno-omit-frame-pointer"],
        shared: true,
        environment: ASAN,
    },
    Way {
        name: "c-asan-static",
        compiler: "cc",
        flags: &["-std=c11", "-fsanitize=address", "-fno-omit-frame-pointer"],
        shared: false,
        environment: ASAN,
    },
];

/// Programs that others start.
const HELPERS: [&str; 1] = ["attach_worker"];

fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| error.to_string())?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What pkg-config says, as words.
fn pkg_config(job: &Job, prefix: &Path, question: &[&str]) -> Result<Vec<String>, String> {
    let command = question.iter().fold(program("pkg-config"), |command, word| command.arg(word));
    let output = job.output(command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).arg("ringpool"))?;
    let output = String::from_utf8(output).map_err(|error| error.to_string())?;
    Ok(output.split_whitespace().map(str::to_owned).collect())
}

fn compile(job: &Job, way: &Way, prefix: &Path, source: &Path, out: &Path) -> Result<(), String> {
    let mut command = program(way.compiler);
    for flag in way.flags.iter().chain(&STRICT).chain(&["-g", "-O1"]) {
        command = command.arg(flag);
    }
    for flag in pkg_config(job, prefix, &["--cflags"])? {
        command = command.arg(flag);
    }
    command = command.arg(source);
    if way.flags.contains(&"-x") {
        command = command.arg("-x").arg("none"); // libraries are no C++
    }
    if way.shared {
        for flag in pkg_config(job, prefix, &["--libs"])? {
            command = command.arg(flag);
        }
        command = command.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
        command = command.arg("-lm").arg("-lpthread");
    } else {
        // The static link line: the archive by its name, and what it needs.
        command = command.arg(prefix.join("lib/libringpool.a"));
        let all = pkg_config(job, prefix, &["--libs", "--static"])?;
        for flag in all.iter().filter(|flag| *flag != "-lringpool") {
            command = command.arg(flag);
        }
    }
    job.run(command.arg("-o").arg(out))
}

/// A program in C, linked with the shared library under `prefix`.
pub fn compile_shared(job: &Job, prefix: &Path, source: &Path, out: &Path) -> Result<(), String> {
    compile(job, &WAYS[0], prefix, source, out)
}

/// Runs a program under a time limit of its own.
pub fn run_limited(command: Cmd) -> Result<(), String> {
    Job::new(LIMIT)?.run(command)
}

/// A program of the tests, with its arguments.
fn test(directory: &Path, name: &str) -> Cmd {
    let command = program(directory.join(name));
    match name {
        "attach" => command.arg(directory.join("attach_worker")),
        _ => command,
    }
}

pub fn run(job: &Job) -> Result<(), String> {
    job.run(cargo("test --package ringpool-ffi"))?;
    let base = target().join("c");
    let prefix = base.join("prefix");
    install(job, &prefix)?;
    let tests = sources(&root().join("tests/c"))?;
    for way in WAYS {
        let directory = base.join(way.name);
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        for source in &tests {
            compile(job, way, &prefix, source, &directory.join(stem(source)))?;
        }
        for name in tests.iter().map(|source| stem(source)).filter(|name| !HELPERS.contains(&name.as_str())) {
            let mut command = test(&directory, &name);
            for (variable, value) in way.environment {
                command = command.env(variable, value);
            }
            run_limited(command)?;
        }
    }
    examples(job, &prefix, &base.join("examples"))
}

/// Programs whose workers need not leave by themselves: see `tests/c/README.md`.
const UNDER_VALGRIND: [&str; 6] =
    ["twice", "seed_apply_async", "seed_initializer", "calls", "errors", "threads"];

/// The programs under valgrind, if there is one.
pub fn valgrind(job: &Job) -> Result<(), String> {
    if job.run(program("valgrind").arg("--version")).is_err() {
        println!("there is no valgrind here: nothing was checked");
        return Ok(());
    }
    // System calls by way of the C library, where the shim finds them. Flags are part of what cargo compares, so a
    // directory of its own saves compiling all anew.
    let target = root().join("target-valgrind");
    job.run(
        cargo("build --profile clib --package ringpool-ffi")
            .env("RUSTFLAGS", "--cfg rustix_use_libc")
            .env("CARGO_TARGET_DIR", &target),
    )?;
    let (built, tests) = (target.join("clib"), root().join("tests/c"));
    let tools = tests.join("valgrind");
    let shim = built.join("pidfd_shim.so");
    let cc = |source: &Path, out: &Path| {
        STRICT.iter().fold(program("cc").arg(source).arg("-o").arg(out), Cmd::arg)
    };
    job.run(cc(&tools.join("pidfd_broker.c"), &built.join("pidfd_broker")))?;
    job.run(cc(&tools.join("pidfd_shim.c"), &shim).arg("-shared").arg("-fPIC"))?;
    for name in UNDER_VALGRIND {
        let out = built.join(name);
        let compiled = cc(&tests.join(format!("{name}.c")), &out).arg("-std=c11").arg("-g").arg("-O1");
        let compiled = compiled.arg(format!("-I{}", root().join("include").display()));
        job.run(compiled.arg(built.join("libringpool.so")).arg("-lm").arg("-lpthread"))?;
        let mut command = program(built.join("pidfd_broker")).arg(&shim).arg("valgrind").arg("-q");
        for flag in
            ["full", "definite", "definite"].iter().zip(LEAKS).map(|(what, flag)| format!("{flag}={what}"))
        {
            command = command.arg(flag);
        }
        let command = command.arg("--error-exitcode=9").arg(&out).env("RINGPOOL_C_SMALL", "1");
        let soname = built.join("libringpool.so.1");
        if !soname.exists() {
            std::os::unix::fs::symlink("libringpool.so", &soname).map_err(|error| error.to_string())?;
        }
        run_limited(command.env("LD_LIBRARY_PATH", &built))?;
    }
    Ok(())
}

const LEAKS: [&str; 3] = ["--leak-check", "--show-leak-kinds", "--errors-for-leak-kinds"];

/// The examples, made as their README says.
fn examples(job: &Job, prefix: &Path, directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    for source in sources(&root().join("examples/c"))? {
        compile(job, &WAYS[0], prefix, &source, &directory.join(stem(&source)))?;
    }
    let output = job.output(program(directory.join("quickstart")))?;
    if output != b"10 + 20 = 30\nthe root of 1000000 is 1000\n" {
        return Err(format!("the quickstart printed {:?}", String::from_utf8_lossy(&output)));
    }
    // As many bytes as the files have, however many workers count them.
    let files = ["engine/src/error.rs", "include/ringpool.h", "Cargo.lock"];
    let histogram = |processes: &str| {
        let command = program(directory.join("histogram")).arg(processes);
        job.output(files.iter().fold(command, |command, file| command.arg(root().join(file))))
    };
    let one = histogram("1")?;
    let bytes: u64 =
        files.iter().filter_map(|file| root().join(file).metadata().ok()).map(|file| file.len()).sum();
    if !String::from_utf8_lossy(&one).contains(&format!("{bytes} bytes")) {
        return Err(format!(
            "the histogram does not tell of {bytes} bytes: {}",
            String::from_utf8_lossy(&one)
        ));
    }
    if histogram("3")? != one {
        return Err("the histogram differs with the number of workers".to_owned());
    }
    Ok(())
}
