//! The gateway as a process: the `gengfu` binary that was built together with the tests. It owns starting,
//! killing and asking it; it refuses to know its configuration, which the scenario writes.
//!
//! The binary is `$GENGFU_BIN`, or `gengfu` in the folder of this build (`target/<profile>/`). `make test`
//! builds it first. A test run by hand uses what was built last: after a change, `cargo build -p gengfu`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use gengfu::settings::RESTART_CODE;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Process, eventually};
use crate::{Result, RigError};

/// A gateway, running or not, with its configuration in `<dir>/gengfu.toml`. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    dir: PathBuf,
    config: PathBuf,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Gateway {
    /// Writes the configuration. Starts nothing yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn prepare(dir: &Path, config_toml: &str) -> Result<Self> {
        let config = dir.join("gengfu.toml");
        let write = || fs::create_dir_all(dir).and_then(|()| fs::write(&config, config_toml));
        write().map_err(|e| RigError::failed(format!("write {}", config.display()), e))?;
        Ok(Self { dir: dir.to_owned(), config, environment: Vec::new(), arguments: Vec::new(), process: None })
    }

    /// As [`Gateway::prepare`], then [`Gateway::start`].
    ///
    /// # Errors
    /// As those.
    pub fn launch(dir: &Path, config_toml: &str) -> Result<Self> {
        let mut gateway = Self::prepare(dir, config_toml)?;
        gateway.start()?;
        Ok(gateway)
    }

    /// Sets a variable of the environment for the next starts, such as `GENGFU_LOG`.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds words to `gengfu run` for the next starts, such as `--log json`.
    #[must_use]
    pub fn with_arguments(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Starts `gengfu run`. Does not wait: [`Gateway::wait_until`] does, for what the scenario needs.
    ///
    /// # Errors
    /// When it runs already, or the binary is missing.
    pub fn start(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(Process::is_running) {
            return Err(RigError::failed("start the gateway", "it runs already"));
        }
        let mut command = self.command(&["run"])?;
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        self.process = Some(Process::spawn("gengfu", command, &self.dir)?);
        Ok(())
    }

    /// Starts it again when it ended to be started again, as a service manager does. True when it did.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn tend(&mut self) -> Result<bool> {
        // It ends at once when it runs, or never did.
        let ended = self.process.as_mut().and_then(|process| process.wait(Duration::ZERO).ok());
        if ended.and_then(|status| status.code()) != Some(i32::from(RESTART_CODE)) {
            return Ok(false);
        }
        self.start()?;
        Ok(true)
    }

    /// Kill -9. Harmless when it does not run.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Kill -9, then start again.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.kill();
        self.start()
    }

    /// SIGTERM, and waits for the end in order. Gives the exit code; `None` when a signal ended it.
    ///
    /// # Errors
    /// When it never ran or does not end within `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> Result<Option<i32>> {
        Ok(self.process()?.terminate(deadline)?.code())
    }

    /// The process: its output, its memory, freezing it.
    ///
    /// # Errors
    /// When it was never started.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| RigError::failed("reach the gateway", "it was never started"))
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Runs another `gengfu` command (`status`, `trace ID`, ...) with this configuration: exit code, standard
    /// output, standard error.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn command_output(&self, words: &[&str]) -> Result<(Option<i32>, String, String)> {
        output_of(self.command(words)?, words)
    }

    /// Runs `gengfu check` on this configuration, with more options: as [`Gateway::command_output`].
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn check(&self, options: &[&str]) -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(binary()?);
        command.arg("check").args(options).arg(&self.config);
        output_of(command, &["check"])
    }

    /// What `gengfu status --json` says.
    ///
    /// # Errors
    /// When the gateway does not answer, or not in JSON.
    pub fn status(&self) -> Result<serde_json::Value> {
        let (_, out, err) = self.command_output(&["status", "--json"])?;
        serde_json::from_str(&out)
            .map_err(|e| RigError::failed("read the gateway's status", format!("{e}\n{}{}", out, err)))
    }

    /// The process of the first camera's worker; `None` while there is none.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub fn camera_worker(&self) -> Result<Option<Pid>> {
        let pid = self.status()?["cameras"][0]["worker_pid"].as_i64();
        Ok(pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }

    /// Kill -9 for the first camera's worker. False when there was none to kill.
    ///
    /// # Errors
    /// When the gateway does not answer, or the worker may not be killed.
    pub fn kill_camera_worker(&self) -> Result<bool> {
        match self.camera_worker()?.map(|pid| kill_process(pid, Signal::KILL)) {
            None | Some(Err(Errno::SRCH)) => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(e)) => Err(RigError::failed("kill the camera's worker", e)),
        }
    }

    /// Waits until the gateway's status satisfies `accept`, tending it. Ends early when the gateway has ended for good.
    ///
    /// # Errors
    /// When the time is over (the text has the last status and the gateway's last words).
    pub fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut accept: impl FnMut(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        let ended = eventually(what, deadline, || {
            self.tend().map_err(|e| e.to_string())?;
            let running = self.process.as_mut().is_some_and(Process::is_running);
            let tail = self.process.as_ref().map_or_else(String::new, Process::tail);
            if !running {
                return Ok(Err(tail));
            }
            match self.status() {
                Ok(status) if accept(&status) => Ok(Ok(status)),
                Ok(status) => Err(format!("{status:#}\n{tail}")),
                Err(e) => Err(format!("{e}\n{tail}")),
            }
        })?;
        ended.map_err(|tail| RigError::failed(what, format!("the gateway has ended\n{tail}")))
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(words).arg("--config").arg(&self.config);
        Ok(command)
    }
}

fn output_of(mut command: Command, words: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| RigError::failed(format!("run gengfu {}", words.join(" ")), e))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The `gengfu` binary of this build.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GENGFU_BIN") {
        return Ok(path.into());
    }
    let doing = "find the gengfu binary";
    // A test binary is target/<profile>/deps/<name>-<hash>.
    let own = std::env::current_exe().map_err(|e| RigError::failed(doing, e))?;
    let built = own.ancestors().nth(2).map(|profile| profile.join("gengfu")).filter(|file| file.is_file());
    built.ok_or_else(|| RigError::failed(doing, "it is not built: `cargo build -p gengfu` with the tests' profile"))
}

/// A gateway whose log is read line by line while it runs, for benches: nothing polls it. Dropping it kills it.
pub struct Watched<T> {
    child: Child,
    read: Receiver<T>,
}

impl<T: Send + 'static> Watched<T> {
    /// Starts `gengfu run` with the configuration at `config` and a log in JSON; `pick` makes something of a line, or nothing.
    ///
    /// # Errors
    /// When the binary is not built or does not start.
    pub fn start(config: &Path, mut pick: impl FnMut(String) -> Option<T> + Send + 'static) -> Result<Self> {
        let program = binary()?;
        let mut command = Command::new(&program);
        command.args(["run", "--log", "json", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let doing = format!("start {}", program.display());
        let mut child = command.spawn().map_err(|e| RigError::failed(&doing, e))?;
        let log = child.stderr.take().ok_or_else(|| RigError::failed(&doing, "its log is not piped"))?;
        // The reader must never make the gateway wait for a full pipe.
        let (picked, read) = sync_channel(1 << 16);
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
                if let Some(found) = pick(line)
                    && picked.send(found).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { child, read })
    }

    /// What was picked next; `None` when nothing came `within`.
    ///
    /// # Errors
    /// When the gateway has ended.
    pub fn next(&self, within: Duration) -> Result<Option<T>> {
        match self.read.recv_timeout(within) {
            Ok(found) => Ok(Some(found)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RigError::failed("read the gateway's log", "it has ended")),
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        // Only an ended process cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
