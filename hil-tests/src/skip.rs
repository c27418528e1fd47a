//! "Skipped, because ...": the one way a test of this project may not run. It owns the rule that a missing part
//! (root, a program, a file) makes a test *counted as skipped, with its reason*, never quietly passed. It
//! refuses to skip for anything found out while a test runs: from then on it is a failure.
//!
//! A test file with such tests has `harness = false` and a `main` like this:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     skip::main(vec![
//!         skip::test("disk_cut_loses_what_was_not_synced", need::root(), || { /* ... */ }),
//!         skip::test("broker_starts", need::all([need::tool("mosquitto"), need::root()]), broker_starts),
//!     ])
//! }
//! ```
//!
//! Both `cargo test` and nextest show such a test as ignored under the name `[skipped, because ...] name`. With
//! `GENGFU_NO_SKIP=1` in the environment, as in CI, it fails instead.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// Whether a test's parts are here; `Err` says why not, as the rest of the sentence "skipped, because ...".
pub type Need = Result<(), String>;

/// How the reason of a test ends whose data set-up does not fetch: such a test may be skipped even where skipping is forbidden.
pub const OPTIONAL: &str = "the data folder beside the repository is optional";

/// A test that runs if `need` is met. It fails by panicking, or by the error it gives.
pub fn test<R: Outcome>(name: &str, need: Need, body: impl FnOnce() -> R + Send + 'static) -> Trial {
    let forbidden = std::env::var_os("GENGFU_NO_SKIP").is_some_and(|v| v != "0" && !v.is_empty());
    match need {
        Ok(()) => Trial::test(name, move || body().into_result()),
        Err(why) if forbidden && !why.ends_with(OPTIONAL) => Trial::test(name, move || {
            Err(format!("would be skipped, because {why}; GENGFU_NO_SKIP forbids that").into())
        }),
        Err(why) => Trial::test(name, || Ok(())).with_kind(format!("skipped, because {why}")).with_ignored_flag(true),
    }
}

/// Runs the tests as the command line says; the body of a test file's `main`.
#[must_use]
pub fn main(tests: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// What a test's body may return: nothing, or a result whose error is printed with all its causes.
pub trait Outcome {
    /// The outcome as the test runner wants it.
    ///
    /// # Errors
    /// The test's failure.
    fn into_result(self) -> Result<(), Failed>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Failed> {
        Ok(())
    }
}

impl<E: std::fmt::Display> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), Failed> {
        self.map_err(|e| Failed::from(e.to_string()))
    }
}

/// The parts a test may need.
pub mod need {
    use super::Need;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    /// Nothing that could be missing.
    ///
    /// # Errors
    /// Never.
    pub fn nothing() -> Need {
        Ok(())
    }

    /// Every one of `needs`; the first that is missing is the reason.
    ///
    /// # Errors
    /// The reason.
    pub fn all<const N: usize>(needs: [Need; N]) -> Need {
        needs.into_iter().collect()
    }

    /// Root, to mount file systems.
    ///
    /// # Errors
    /// When this is another user.
    pub fn root() -> Need {
        if rustix::process::geteuid().is_root() { Ok(()) } else { Err("this is not root".into()) }
    }

    /// A program in `PATH` or in the folders for system programs.
    ///
    /// # Errors
    /// When it is not there.
    pub fn tool(program: &str) -> Need {
        find_tool(program).map(|_| ()).ok_or_else(|| format!("{program} is not installed (make setup installs it)"))
    }

    /// A file, such as footage or a model.
    ///
    /// # Errors
    /// When it is not there.
    pub fn file(path: &Path) -> Need {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        if path.is_file() { Ok(()) } else { Err(format!("{name} is missing (make setup fetches it)")) }
    }

    /// Python 3 of the system with the bindings of gst-rtsp-server.
    ///
    /// # Errors
    /// When they are not there.
    pub fn rtsp_server() -> Need {
        let probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
        let done = Command::new(crate::rtsp::PYTHON)
            .args(["-c", probe])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match done {
            Ok(status) if status.success() => Ok(()),
            _ => Err("gst-rtsp-server's Python bindings are not installed (make setup installs them)".into()),
        }
    }

    /// Where a program is. Users other than root often lack the `sbin` folders in `PATH`.
    #[must_use]
    pub fn find_tool(program: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
    }
}
