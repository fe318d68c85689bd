//! The Python package: built, installed into an environment of its own, checked and tested there.

use crate::install::target;
use crate::run::{Cmd, Job, program, root};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest that the package is for, and the one that has to be there for CPython's own tests.
const OLDEST: u32 = 11;

/// Our tests are asleep for half of their time.
const PARTS: usize = 3;

/// Prints what we want to know of an interpreter; fails for what cannot make an environment.
const PROBE: &str = "\
import sys, venv, ensurepip, importlib.util as util
assert sys.implementation.name == 'cpython' and sys.version_info[0] == 3
tests = util.find_spec('test') and util.find_spec('test._test_multiprocessing')
print(sys.version_info[1], int(bool(tests)), sys.executable)";

/// An interpreter of CPython 3.
struct Python {
    minor: u32,
    /// Whether it comes with its own tests; distributions leave them out.
    has_tests: bool,
    path: PathBuf,
}

fn probe(name: &Path) -> Option<Python> {
    let mut command = Command::new(name);
    command.args(["-c", PROBE]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.trim().splitn(3, ' ');
    let minor = words.next()?.parse().ok()?;
    let has_tests = words.next()? == "1";
    Some(Python { minor, has_tests, path: words.next()?.into() })
}

/// One interpreter of each version that the package is for, the oldest first.
fn pythons() -> Vec<Python> {
    let mut names = vec![PathBuf::from("python3")];
    names.extend((OLDEST..OLDEST + 10).map(|minor| PathBuf::from(format!("python3.{minor}"))));
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|pyenv| std::fs::read_dir(pyenv.join("versions")).ok());
    names.extend(versions.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python3")));
    let mut found: Vec<Python> = names.iter().filter_map(|name| probe(name)).collect();
    found.retain(|python| python.minor >= OLDEST);
    // The first of a version is what a user's shell would run; but one with tests is of more use here.
    found.sort_by_key(|python| (python.minor, !python.has_tests));
    found.dedup_by_key(|python| python.minor);
    found
}

fn io<T>(what: &Path, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", what.display()))
}

/// A virtual environment.
struct Environment {
    directory: PathBuf,
}

impl Environment {
    /// The environment for this interpreter, made anew if it is not of this very one.
    fn of(job: &Job, base: &Path, python: &Python) -> Result<Self, String> {
        let directory = base.join(format!("venv-3.{}", python.minor));
        let stamp = directory.join("made-by");
        let maker = python.path.display().to_string();
        if std::fs::read_to_string(&stamp).ok().as_deref() != Some(&maker) {
            let made = program(&python.path).arg("-m").arg("venv").arg("--clear").arg(&directory);
            job.run(made)?;
            io(&stamp, std::fs::write(&stamp, maker))?;
        }
        Ok(Environment { directory })
    }

    /// A program of it, which leaves nothing behind in the source tree.
    fn run(&self, name: &str) -> Cmd {
        let caches = self.directory.join("caches");
        program(self.directory.join("bin").join(name))
            .at(&root().join("python"))
            .quietly("PYTHONPYCACHEPREFIX", caches.join("python"))
            .quietly("MYPY_CACHE_DIR", caches.join("mypy"))
            .quietly("RUFF_CACHE_DIR", caches.join("ruff"))
            .quietly("HYPOTHESIS_STORAGE_DIRECTORY", caches.join("hypothesis"))
            .quietly("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    }

    fn python(&self, module: &str) -> Cmd {
        self.run("python").arg("-m").arg(module)
    }

    fn pip(&self) -> Cmd {
        self.python("pip").arg("install").arg("--quiet")
    }

    /// Installs what a file lists, unless that was done.
    fn require(&self, job: &Job, list: &Path) -> Result<(), String> {
        let stamp = self.directory.join("requires");
        let wanted = io(list, std::fs::read_to_string(list))?;
        if std::fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
            job.run(self.pip().arg("--requirement").arg(list))?;
            io(&stamp, std::fs::write(&stamp, wanted))?;
        }
        Ok(())
    }

    fn install(&self, job: &Job, wheel: &Path) -> Result<(), String> {
        job.run(self.pip().arg("--force-reinstall").arg("--no-deps").arg(wheel))
    }
}

/// The wheel, one file for all versions.
fn wheel(job: &Job, environment: &Environment, base: &Path) -> Result<PathBuf, String> {
    let wheels = base.join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    let build = environment.run("maturin").arg("build").arg("--release").arg("--out").arg(&wheels);
    job.run(build.arg("--interpreter").arg(environment.directory.join("bin/python")))?;
    let mut files = io(&wheels, std::fs::read_dir(&wheels))?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|end| end == "whl")).ok_or("there is no wheel".to_owned())
}

/// Runs these sequences at the same time: they are asleep for much of theirs. The first failure, if any.
fn together(job: &Job, sequences: Vec<Vec<Cmd>>) -> Result<(), String> {
    // All have to end before anything is said.
    let all = |commands: Vec<Cmd>| {
        commands.into_iter().map(|command| job.run(command)).collect::<Vec<_>>().into_iter().collect()
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> = sequences.into_iter().map(|commands| scope.spawn(move || all(commands))).collect();
        let joined = runs.into_iter().map(|run| run.join().unwrap_or(Err("a thread panicked".to_owned())));
        joined.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Our own tests in a few parts, to be run beside each other.
fn parts(tests: &Path, pytest: impl Fn() -> Cmd) -> Result<Vec<Cmd>, String> {
    let names = io(tests, std::fs::read_dir(tests))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut files: Vec<String> =
        names.filter(|name| name.starts_with("test_") && name.ends_with(".py")).collect();
    files.sort();
    let part =
        |number| files.iter().skip(number).step_by(PARTS).fold(pytest(), |pytest, file| pytest.arg(file));
    Ok((0..PARTS).map(part).collect())
}

pub fn run(job: &Job) -> Result<(), String> {
    let base = target().join("python");
    let pythons = pythons();
    let Some(first) = pythons.first() else {
        return Err(format!(
            "no CPython 3.{OLDEST} or later that can make virtual environments is in PATH (apt-get install \
             python3-venv, on distributions whose python3 is recent enough)"
        ));
    };
    if first.minor != OLDEST {
        println!("there is no Python 3.{OLDEST} here: the tests run with 3.{} and later", first.minor);
    }
    let environment = Environment::of(job, &base, first)?;
    environment.require(job, &root().join("python/tests/requirements.txt"))?;
    let wheel = wheel(job, &environment, &base)?;
    environment.install(job, &wheel)?;

    for arguments in [&["check"][..], &["format", "--check"]] {
        let ruff = arguments.iter().fold(environment.run("ruff"), |ruff, argument| ruff.arg(argument));
        let ruff = ruff.arg("--config").arg("pyproject.toml");
        job.run(
            [".", "../bench/python", "../examples/python"].iter().fold(ruff, |ruff, path| ruff.arg(path)),
        )?;
    }
    job.run(environment.python("mypy"))?;
    let tests = root().join("python/tests");
    // Whether the stubs say what the native module has.
    let stubs = environment.python("mypy.stubtest").arg("ringpool._native").arg("--ignore-disjoint-bases");
    let stubs = stubs.arg("--allowlist").arg("stubtest.txt").arg("--ignore-unused-allowlist");
    job.run(stubs.at(&tests))?;
    let pytest = || environment.python("pytest").arg("-q").arg("-p").arg("no:cacheprovider").at(&tests);
    job.run(pytest().arg("--doctest-modules").arg("--pyargs").arg("ringpool"))?;

    // CPython's tests of `multiprocessing.Pool`, with ours in its place, beside our own.
    let cpython = |environment: &Environment| {
        let run = environment.run("python").arg("tests/cpython/run.py");
        // Some of them look for what they have compiled, where it is by default.
        run.quietly("PYTHONPYCACHEPREFIX", "").quietly("PYTHONDONTWRITEBYTECODE", "1")
    };
    let mut suites = vec![cpython(&environment)];
    for python in pythons[1..].iter().filter(|python| python.has_tests) {
        let environment = Environment::of(job, &base, python)?;
        environment.install(job, &wheel)?;
        suites.push(cpython(&environment));
    }
    let mut runs: Vec<_> = parts(&tests, pytest)?.into_iter().map(|part| vec![part]).collect();
    runs.push(suites);
    together(job, runs)
}
