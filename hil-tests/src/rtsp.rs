//! A camera: a real RTSP server (gst-rtsp-server) on a loopback port, serving a clip over and over. It owns the
//! server's life; clips come from [`crate::clip`]. It refuses to encode: what is served is what is in the clip.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clip::{Clip, Codec};
use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::{Result, RigError};

/// Debian's Python, which has the bindings; another one first in `PATH` has not.
pub const PYTHON: &str = "/usr/bin/python3";

const READY_WITHIN: Duration = Duration::from_secs(30);

/// How the camera asks who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// RFC 7617: the password goes over the wire.
    Basic,
    /// RFC 7616 with MD5, as cameras do it.
    Digest,
}

/// A running camera. Dropping it kills it.
#[derive(Debug)]
pub struct RtspCamera {
    port: Port,
    dir: PathBuf,
    clip: Clip,
    login: Option<(Login, String, String)>,
    process: Process,
}

impl RtspCamera {
    /// Starts a camera that shows `clip`; its output goes to `dir`. Waits until it answers RTSP.
    ///
    /// # Errors
    /// When the server cannot start (the text has its words) or does not answer.
    pub fn start(dir: &Path, clip: &Clip) -> Result<Self> {
        Self::start_with(dir, clip, None)
    }

    /// As [`RtspCamera::start`], with a user and password that every client must give.
    ///
    /// # Errors
    /// As [`RtspCamera::start`].
    pub fn start_with_login(dir: &Path, clip: &Clip, login: Login, user: &str, password: &str) -> Result<Self> {
        Self::start_with(dir, clip, Some((login, user.to_owned(), password.to_owned())))
    }

    fn start_with(dir: &Path, clip: &Clip, login: Option<(Login, String, String)>) -> Result<Self> {
        let port = Port::reserve()?;
        let process = launch(dir, &port, clip, login.as_ref())?;
        let mut camera = Self { port, dir: dir.to_owned(), clip: clip.clone(), login, process };
        camera.wait_until_ready()?;
        Ok(camera)
    }

    /// The address without user and password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("rtsp://{}/cam", self.port.addr())
    }

    /// The address as a person would configure it, with user and password if the camera wants them.
    #[must_use]
    pub fn url_with_login(&self) -> String {
        match &self.login {
            Some((_, user, password)) => format!("rtsp://{user}:{password}@{}/cam", self.port.addr()),
            None => self.url(),
        }
    }

    /// The server's process, to read its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it (SIGKILL): its clients see their connection end without a word of RTSP.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it (SIGSTOP): connections stay open and no picture comes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.freeze()
    }

    /// Lets it go on after [`RtspCamera::freeze`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.thaw()
    }

    /// Starts it again at the same address, killing it first if it runs.
    ///
    /// # Errors
    /// As [`RtspCamera::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = launch(&self.dir, &self.port, &self.clip, self.login.as_ref())?;
        self.wait_until_ready()
    }

    /// As [`RtspCamera::restart`], showing another clip from then on.
    ///
    /// # Errors
    /// As [`RtspCamera::start`].
    pub fn restart_with(&mut self, clip: &Clip) -> Result<()> {
        self.clip = clip.clone();
        self.restart()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let addr = self.port.addr();
        let process = &mut self.process;
        let answered = eventually("the RTSP server answers OPTIONS", READY_WITHIN, || {
            if !process.is_running() {
                return Ok(Err(process.tail()));
            }
            options(addr).map(Ok).map_err(|e| format!("{e}\n{}", process.tail()))
        })?;
        answered.map_err(|tail| RigError::failed("start the RTSP server", format!("it ended\n{tail}")))
    }
}

fn launch(dir: &Path, port: &Port, clip: &Clip, login: Option<&(Login, String, String)>) -> Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/rtsp_server.py");
    let mut command = Command::new(PYTHON);
    command.arg(script).args(["--port", &port.number().to_string()]).arg("--clip").arg(clip.path());
    command.args([
        "--codec",
        match clip.codec() {
            Codec::H264 | Codec::H264B => "h264",
            Codec::H265 => "h265",
            Codec::Mjpeg => "mjpeg",
        },
    ]);
    if let Some((login, user, password)) = login {
        let method = if *login == Login::Basic { "basic" } else { "digest" };
        command.args(["--auth", method, "--user", user, "--password", password]);
    }
    Process::spawn("rtsp_server", command, dir)
}

/// Asks for the server's methods (RFC 2326, 10.1). Any RTSP status line will do; a camera with a login may say 401.
fn options(addr: SocketAddr) -> std::result::Result<(), String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&addr, second).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(second)).map_err(|e| e.to_string())?;
    let request = format!("OPTIONS rtsp://{addr}/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut start = [0; 9];
    stream.read_exact(&mut start).map_err(|e| format!("no answer: {e}"))?;
    if &start == b"RTSP/1.0 " { Ok(()) } else { Err(format!("not RTSP: {start:?}")) }
}
