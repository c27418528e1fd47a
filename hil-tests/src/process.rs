//! Child processes of a test. It owns their life: output goes to files, signals go to the right process, and
//! no child outlives the test, not even when the test itself is killed. It refuses shells and process groups:
//! one [`Process`] is one program; a program that starts others must end them itself.
//!
//! Linux ends a child at its parent's death (`PR_SET_PDEATHSIG`) when the *thread* that started it ends. Tests
//! run in short-lived threads, so every child here is started by one thread that lives as long as the test
//! process.
#![expect(clippy::disallowed_methods, reason = "the rig waits for real processes in real time")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use crate::{Result, RigError};

/// How much of a child's output a failure message repeats.
const TAIL_BYTES: u64 = 4_000;

/// Waits until `probe` gives a value, asking again every few milliseconds until `deadline` has passed.
///
/// `probe` says in its `Err` what it saw instead; the last such text becomes part of the error.
///
/// # Errors
/// [`RigError::Deadline`] when the time is over. `probe` is asked at least once, and once more at the end.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let started_at = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let over = started_at.elapsed() >= deadline;
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if over => {
                return Err(RigError::Deadline { what: what.to_owned(), deadline_ms: deadline.as_millis(), last });
            }
            Err(_) => std::thread::sleep(pause.min(deadline.saturating_sub(started_at.elapsed()))),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    /// Where this life's output begins: a restarted program appends to its predecessor's files.
    out_from: u64,
    err_from: u64,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with no input. Its output is appended to `<dir>/<name>.out` and `<dir>/<name>.err`.
    ///
    /// # Errors
    /// When the files cannot be made or the program cannot be started (the text names the program).
    pub fn spawn(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn_with_stdin(name, command, dir)
    }

    /// As [`Process::spawn`], but standard input is as `command` has it. With [`Stdio::piped`] the test takes
    /// the writing end from [`Process::take_stdin`].
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn_with_stdin(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let doing = || format!("start {name} ({})", command_line(&command));
        let fail = |e: &dyn std::fmt::Display| RigError::failed(doing(), e);
        fs::create_dir_all(dir).map_err(|e| fail(&e))?;
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let (out_file, out_from) = append_to(&out).map_err(|e| fail(&e))?;
        let (err_file, err_from) = append_to(&err).map_err(|e| fail(&e))?;
        let text = doing();
        command.stdout(out_file).stderr(err_file);
        die_with_parent(&mut command);
        let child = spawn_from_lasting_thread(command).map_err(|e| RigError::failed(text, e))?;
        Ok(Self { name: name.to_owned(), child, out, err, out_from, err_from, status: None })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The writing end of a piped standard input, once.
    pub fn take_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Whether the process has not ended yet. A stopped (SIGSTOP) process runs in this sense.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let doing = format!("send {signal:?} to {}", self.name);
        if let Some(status) = self.poll() {
            return Err(RigError::failed(doing, format!("it has ended ({status})")));
        }
        // Not reaped yet, so the id cannot have gone to another process.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).map_err(|e| RigError::failed(doing, e))
    }

    /// Freezes the process (SIGSTOP): it keeps its sockets and answers nothing.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let stat = format!("/proc/{}/stat", self.pid());
        // The signal is delivered later than it is sent; a test wants the frozen state.
        eventually(&format!("{} frozen", self.name), Duration::from_secs(5), || {
            let line = fs::read_to_string(&stat).map_err(|e| e.to_string())?;
            match line.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()) {
                Some("T") => Ok(()),
                state => Err(format!("state {state:?}")),
            }
        })
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills the process (SIGKILL) and waits until it is gone. Harmless when it has ended.
    pub fn kill(&mut self) -> ExitStatus {
        if let Some(status) = self.poll() {
            return status;
        }
        // Both can only fail when the child is gone or not ours; it is ours until `wait` returned.
        let _ = self.child.kill();
        let status = self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()));
        self.status = Some(status);
        status
    }

    /// Asks the process to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it has not ended within `deadline`; it is left running then, for the test to look at.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.poll() {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(deadline)
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// When it has not ended within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("{} ended", self.name);
        eventually(&what, deadline, || self.poll().ok_or_else(|| format!("running\n{}", self.tail())))
    }

    /// Lets it live for `moment`, whatever it is doing: for faults that come at a time of their own.
    ///
    /// # Errors
    /// When it ends by itself before (the text has its last words).
    pub fn outlives(&mut self, moment: Duration) -> Result<()> {
        match self.wait(moment) {
            Err(_) => Ok(()),
            Ok(status) => Err(RigError::failed(
                format!("let {} live", self.name),
                format!("it ended ({status})\n{}", self.tail()),
            )),
        }
    }

    /// Waits until a line of this life's output (standard output or error) contains `needle`; gives the line.
    ///
    /// # Errors
    /// When the time is over, or at once when the process has ended without such a line.
    pub fn wait_for_line(&mut self, needle: &str, deadline: Duration) -> Result<String> {
        let what = format!("{} says {needle:?}", self.name);
        let found = eventually(&what, deadline, || {
            // Asked before the output is read: what was written before the end is read after it.
            let ended = self.poll();
            let output = self.output();
            match (output.lines().find(|line| line.contains(needle)), ended) {
                (Some(line), _) => Ok(Ok(line.to_owned())),
                (None, Some(status)) => Ok(Err(status)),
                (None, None) => Err(self.tail()),
            }
        })?;
        found.map_err(|status| RigError::failed(what, format!("it ended first ({status})\n{}", self.tail())))
    }

    /// All output of this life, standard output first.
    #[must_use]
    pub fn output(&self) -> String {
        let mut text = read_from(&self.out, self.out_from);
        text.push_str(&read_from(&self.err, self.err_from));
        text
    }

    /// The last few thousand bytes of standard output and error, for a failure message.
    #[must_use]
    pub fn tail(&self) -> String {
        let tail = |path: &Path, from: u64| {
            let len = fs::metadata(path).map_or(0, |m| m.len());
            read_from(path, from.max(len.saturating_sub(TAIL_BYTES)))
        };
        let (out, err) = (tail(&self.out, self.out_from), tail(&self.err, self.err_from));
        format!("--- {0} stdout\n{out}--- {0} stderr\n{err}---", self.name)
    }

    /// Memory in use now (resident set), in KiB. `None` when the process has ended.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0 (the text has its standard error).
pub fn run(mut command: Command) -> Result<String> {
    let doing = command_line(&command);
    command.stdin(Stdio::null());
    let output = command.output().map_err(|e| RigError::failed(&doing, e))?;
    if !output.status.success() {
        let err = String::from_utf8_lossy(&output.stderr);
        return Err(RigError::failed(doing, format!("{}\n{}", output.status, err.trim_end())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn read_from(path: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|e| format!("({}: {e})\n", path.display()), |b| String::from_utf8_lossy(&b).into_owned())
}

/// Makes the child die when the starting thread does.
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then nobody would ever end this child.
        if getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        Ok(())
    };
    // SAFETY: runs in the child between fork and exec; `hook` makes two system calls, allocates nothing and
    // touches no lock of the parent's.
    unsafe { command.pre_exec(hook) };
}

type SpawnRequest = (Command, mpsc::SyncSender<io::Result<Child>>);

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::SyncSender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::sync_channel::<SpawnRequest>(0);
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                // Nobody waits for the answer only if the asking thread has panicked meanwhile.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::sync_channel(1);
    spawner.send((command, answer)).map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_line_is_found_and_a_later_one_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut p =
            Process::spawn("p", shell("echo first; sleep 0.05; echo second >&2; sleep 60"), dir.path()).unwrap();
        assert_eq!(p.wait_for_line("second", Duration::from_secs(10)).unwrap(), "second");
        assert!(p.output().contains("first"));
    }

    #[test]
    fn an_early_end_is_told_with_its_output_without_waiting_for_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let mut p = Process::spawn("p", shell("echo broken pump >&2; exit 3"), dir.path()).unwrap();
        let error = p.wait_for_line("ready", Duration::from_secs(3600)).unwrap_err().to_string();
        assert!(error.contains("broken pump") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_second_life_does_not_see_the_first_ones_output() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Process::spawn("p", shell("echo ready one"), dir.path()).unwrap();
        first.wait(Duration::from_secs(10)).unwrap();
        let mut second = Process::spawn("p", shell("echo ready two; sleep 60"), dir.path()).unwrap();
        assert_eq!(second.wait_for_line("ready", Duration::from_secs(10)).unwrap(), "ready two");
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let ask = move || {
            let mut command = shell("read word; echo heard $word");
            command.stdin(Stdio::piped());
            Process::spawn_with_stdin("p", command, &path).unwrap()
        };
        let mut p = std::thread::spawn(ask).join().unwrap();
        // Only a child that is still alive now can hear this.
        std::io::Write::write_all(&mut p.take_stdin().unwrap(), b"bell\n").unwrap();
        assert_eq!(p.wait_for_line("heard", Duration::from_secs(10)).unwrap(), "heard bell");
    }

    #[test]
    fn a_frozen_process_is_stopped_and_can_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut p = Process::spawn("p", shell("sleep 60"), dir.path()).unwrap();
        p.freeze().unwrap();
        assert!(p.is_running());
        assert_eq!(p.kill().signal(), Some(Signal::KILL.as_raw()));
        assert!(!p.is_running() && p.signal(Signal::TERM).is_err());
    }

    #[test]
    fn a_deadline_tells_what_was_seen_last() {
        let mut asked = 0;
        let error = eventually::<()>("the tide", Duration::from_millis(5), || {
            asked += 1;
            Err(format!("still low ({asked})"))
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the tide") && error.contains(&format!("still low ({asked})")), "{error}");
    }
}
