//! Goal: a camera that dies is told as trouble and found again. Method: a real RTSP server (gst-rtsp-server) as a process that
//! is killed without a farewell.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use gengfu_vision::protocol::{CameraState, ErrorKind, ParentMessage, WorkerMessage};

use crate::support::{self, Skip, Worker};

/// Serves a moving test picture as H.264 with B-frames; prints a line when it listens. Needs user and password.
const SERVER: &str = r#"
import sys, gi
gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0')
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
server = GstRtspServer.RTSPServer(); server.set_service(sys.argv[1]); server.set_address('127.0.0.1')
auth = GstRtspServer.RTSPAuth()
token = GstRtspServer.RTSPToken(); token.set_string('media.factory.role', 'user')
auth.add_digest('watch', 'ge@heim', token); auth.set_supported_methods(GstRtspServer.RTSPAuthMethod.DIGEST if hasattr(GstRtspServer, 'RTSPAuthMethod') else 2)
server.set_auth(auth)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch('( videotestsrc is-live=true pattern=smpte horizontal-speed=4 ! video/x-raw,width=640,height=360,framerate=10/1 ! x264enc key-int-max=10 bframes=2 ! rtph264pay name=pay0 pt=96 )')
factory.set_shared(True)
roles = GstRtspServer.RTSPPermissions() if hasattr(GstRtspServer, 'RTSPPermissions') else None
if roles is not None:
    roles.add_permission_for_role('user', 'media.factory.access', True)
    roles.add_permission_for_role('user', 'media.factory.construct', True)
    factory.set_permissions(roles)
server.get_mount_points().add_factory('/cam', factory)
server.attach(None)
print('listening', server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"#;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(port: u16) -> Result<Self, Skip> {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", SERVER, &port.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("/usr/bin/python3 does not start: {e}"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).map_err(|e| e.to_string())?;
        match line.strip_prefix("listening ").and_then(|p| p.trim().parse().ok()) {
            Some(port) => Ok(Self { child, port }),
            None => {
                let _ = child.kill();
                let output = child.wait_with_output().map_err(|e| e.to_string())?;
                let why = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no reason").to_owned();
                Err(format!(
                    "gst-rtsp-server does not start ({why}); apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly"
                ))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: the connection breaks without a TEARDOWN.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pictures(worker: &mut Worker, mut wanted: u32) {
    worker.until(|m| {
        wanted -= u32::from(matches!(m, WorkerMessage::Tracks(_)));
        (wanted == 0).then_some(())
    });
}

pub fn killed_server() -> Result<(), Skip> {
    let model = support::yolox()?;
    let server = Server::start(0)?;
    let port = server.port;
    let config = support::config(&format!("rtsp://watch:ge%40heim@127.0.0.1:{port}/cam"), model.clone());
    let mut worker = Worker::start(&config);
    pictures(&mut worker, 10);
    drop(server);
    let mut messages = Vec::new();
    let kind = worker.until(|m| {
        messages.push(format!("{m:?}"));
        match m {
            WorkerMessage::State { state: CameraState::Error { kind, fatal: false, .. }, .. } => Some(kind),
            _ => None,
        }
    });
    assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Silence), "{kind:?}");
    assert!(messages.iter().all(|m| !m.contains("heim")), "the password is in {messages:?}");
    let server = Server::start(port)?;
    worker.until(|m| matches!(m, WorkerMessage::State { state: CameraState::Streaming, .. }).then_some(()));
    pictures(&mut worker, 3);
    worker.tell(&ParentMessage::Shutdown);
    worker.rest();
    assert_eq!(worker.wait().code(), Some(0));

    // A wrong password is an error that can be acted upon, not a hang.
    let mut worker = Worker::start(&support::config(&format!("rtsp://watch:wrong@127.0.0.1:{port}/cam"), model));
    let message = worker.until(|m| match m {
        WorkerMessage::State { state: CameraState::Error { kind: ErrorKind::Open, message, .. }, .. } => Some(message),
        _ => None,
    });
    assert!(message.contains("credentials") && !message.contains("wrong"), "{message}");
    drop(server);
    Ok(())
}
