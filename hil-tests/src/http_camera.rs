//! A camera that gives JPEGs over HTTP, one a request or one after the other. It owns the server's life; the pictures come from
//! [`crate::clip`]. It refuses to be a client.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::clip::Clip;
use crate::ports::Port;
use crate::process::{Process, eventually};
use crate::rtsp::{Login, PYTHON};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running camera. Dropping it kills it.
#[derive(Debug)]
pub struct HttpCamera {
    port: Port,
    login: Option<(Login, String, String)>,
    process: Process,
}

impl HttpCamera {
    /// Starts a camera that shows the clip's pictures in turn; `login` is what every client must give. Its output goes to `dir`.
    ///
    /// # Errors
    /// When the pictures cannot be made or the server does not start.
    pub fn start(dir: &Path, clip: &Clip, login: Option<(Login, &str, &str)>) -> Result<Self> {
        let port = Port::reserve()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/http_camera.py");
        let mut command = Command::new(PYTHON);
        command.arg(script).args(["--port", &port.number().to_string()]).arg("--stills").arg(clip.stills()?);
        if let Some((login, user, password)) = login {
            let method = if login == Login::Basic { "basic" } else { "digest" };
            command.args(["--auth", method, "--user", user, "--password", password]);
        }
        let process = Process::spawn("http_camera", command, dir)?;
        let login = login.map(|(login, user, password)| (login, user.to_owned(), password.to_owned()));
        let mut camera = Self { port, login, process };
        let addr = camera.port.addr();
        let process = &mut camera.process;
        eventually("the HTTP camera listens", READY_WITHIN, || {
            TcpStream::connect_timeout(&addr, Duration::from_secs(1)).map_err(|e| format!("{e}\n{}", process.tail()))
        })?;
        Ok(camera)
    }

    /// Address of a path (`snap.jpg`, `stream`), with user and password if the camera wants them.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        match &self.login {
            Some((_, user, password)) => format!("http://{user}:{password}@{}/{path}", self.port.addr()),
            None => format!("http://{}/{path}", self.port.addr()),
        }
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
