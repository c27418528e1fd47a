//! What a worker gives up before it touches a camera's bytes. Owns the order of the steps and the calls to the kernel; refuses to relax
//! anything later: every step here is one-way. What files and system calls remain is in `sandbox_calls.rs`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox_calls;

/// The limits a worker puts on itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Niceness, 0..19: the life-safety path of the gateway always wins the processor.
    pub nice: i32,
    /// Bound on the worker's address space in bytes (`RLIMIT_AS`), or none. The libraries map far more than they
    /// touch: below about 600 MiB the detector cannot start.
    pub address_space_max_bytes: Option<u64>,
    /// Folders in which the worker may write: that of the stills.
    pub writable: Vec<PathBuf>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nice: 10, address_space_max_bytes: Some(1536 * 1024 * 1024), writable: Vec::new() }
    }
}

/// A step the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "sandbox: {step} was refused: {cause}; run the worker as the gateway starts it, not under a debugger or a stricter limit"
)]
pub struct SandboxError {
    step: &'static str,
    cause: std::io::Error,
}

/// What the kernel enforces on a worker besides its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// Only listed files can be opened (Landlock, Linux 5.13).
    pub files: bool,
    /// Calls that no decoder needs end the worker (seccomp).
    pub calls: bool,
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.files, self.calls) {
            (true, true) => "files and system calls confined",
            (false, true) => "system calls confined; this kernel cannot confine files (no Landlock)",
            (true, false) => "files confined; this kernel cannot confine system calls (no seccomp)",
            (false, false) => "not confined: this kernel has neither Landlock nor seccomp",
        })
    }
}

/// Enters the sandbox: no new privileges, death with the parent, no core dumps (they would hold pictures of people),
/// low priority, bounded address space; then only `readable` and [`Limits::writable`] of the files, and no system call that starts
/// a program or reaches another process. Call it before any thread exists: the file rules hold for the calling thread and those it starts.
///
/// A kernel without Landlock or seccomp is no error; the returned value says so.
///
/// The death signal is tied to the *thread* that started the worker (prctl(2), `PR_SET_PDEATHSIG`), so the gateway must
/// start workers from a thread that lives as long as they should. Closing standard input ends a worker in any case.
///
/// # Errors
/// The first step the kernel refuses.
pub fn enter(limits: &Limits, readable: &[PathBuf]) -> Result<Confinement, SandboxError> {
    // SAFETY: prctl with these options takes plain integers and touches no memory of ours.
    unsafe {
        check("no new privileges", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check("death with the parent", libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        check("undumpable", libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    set_limit("no core dumps", libc::RLIMIT_CORE, 0)?;
    if let Some(bytes) = limits.address_space_max_bytes {
        set_limit("address space limit", libc::RLIMIT_AS, bytes)?;
    }
    // SAFETY: setpriority takes plain integers; who = 0 is this process.
    check("nice", unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, limits.nice.clamp(0, 19)) })?;
    // Two arenas instead of eight per core: decoder and detector threads would otherwise each hold freed pictures.
    // SAFETY: mallopt takes plain integers and is called before other threads exist.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
    let refused = |step| move |cause: String| SandboxError { step, cause: std::io::Error::other(cause) };
    let files = sandbox_calls::confine_files(readable, &limits.writable).map_err(refused("file rules"))?;
    // SAFETY: prctl with this option takes plain integers; it fails where the kernel has no seccomp.
    let has_seccomp = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } >= 0;
    if has_seccomp {
        sandbox_calls::confine_calls().map_err(refused("system call filter"))?;
    }
    Ok(Confinement { files, calls: has_seccomp })
}

fn set_limit(step: &'static str, resource: libc::__rlimit_resource_t, bytes: u64) -> Result<(), SandboxError> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the pointer is to a live local of the right type.
    check(step, unsafe { libc::setrlimit(resource, &raw const limit) })
}

fn check(step: &'static str, result: libc::c_int) -> Result<(), SandboxError> {
    if result == 0 { Ok(()) } else { Err(SandboxError { step, cause: std::io::Error::last_os_error() }) }
}

/// Gives back to the system what was freed: after loading a model several MiB, for as long as the worker runs.
pub fn release_freed_memory() {
    // SAFETY: malloc_trim takes a plain integer and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process in bytes; 0 where /proc cannot be read.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    // SAFETY: sysconf takes a plain integer.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    pages.unwrap_or(0) * page_bytes
}

/// Processor time of this process so far, ms.
#[must_use]
pub fn cpu_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
