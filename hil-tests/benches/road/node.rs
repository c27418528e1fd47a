//! The far end of a gateway's serial link: a pseudo-terminal on which this program writes frames itself, so that the time
//! of writing is known. Owns the wire and the numbering of one boot. It has no sensors and never repeats: a frame that
//! gets no `Ack` ends the bench.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use gengfu_wire::{
    Ack, Capabilities, Decoder, Downlink, Event, EventKind, FRAME_BYTES_MAX, FirmwareVersion, Frame, Hello, Message,
    Uid, Uplink, encode,
};
use hil_tests::{Result, RigError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The run of the node; one is enough for one bench.
const BOOT: u32 = 0x0b0a_7001;

/// A node on a pseudo-terminal.
pub struct Node {
    wire: File,
    /// The gateway's end, kept open so that its settings last.
    _far_end: File,
    uid: Uid,
    decoder: Decoder,
    booted_at: SystemTime,
    next_sequence: u32,
    acked_through: u32,
    introduced: bool,
}

impl Node {
    /// Makes the pseudo-terminal; the gateway finds it at `link`.
    ///
    /// # Errors
    /// When the system has none.
    pub fn open(link: &Path, uid: u64) -> Result<Node> {
        let fail = |e: std::io::Error| RigError::failed("open a pseudo-terminal (is /dev/pts mounted?)", e);
        let wire = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(|e| fail(e.into()))?;
        grantpt(&wire).and_then(|()| unlockpt(&wire)).map_err(|e| fail(e.into()))?;
        let name = ptsname(&wire, Vec::new()).map_err(|e| fail(e.into()))?;
        let name = name.to_string_lossy().into_owned();
        let far_end = File::options().read(true).write(true).open(&name).map_err(fail)?;
        let mut termios = tcgetattr(&far_end).map_err(|e| fail(e.into()))?;
        termios.make_raw();
        tcsetattr(&far_end, OptionalActions::Now, &termios).map_err(|e| fail(e.into()))?;
        std::os::unix::fs::symlink(name, link).map_err(fail)?;
        Ok(Node {
            wire: File::from(wire),
            _far_end: far_end,
            uid: Uid(uid.to_be_bytes()),
            decoder: Decoder::new(),
            booted_at: crate::now(),
            next_sequence: 1,
            acked_through: 0,
            introduced: false,
        })
    }

    /// Writes an event's frame; gives the time just before the write.
    ///
    /// # Errors
    /// When the wire does not take it.
    pub fn send(&mut self, channel: u8, kind: EventKind) -> Result<SystemTime> {
        let event = Event { boot: BOOT, sequence: self.next_sequence, uptime_ms: self.uptime_ms(), channel, kind };
        self.next_sequence += 1;
        self.write(Uplink::Event(event))
    }

    /// Answers the gateway until it knows this node.
    ///
    /// # Errors
    /// When it does not ask within `within`.
    pub fn introduce(&mut self, within: Duration) -> Result<()> {
        self.serve("the gateway asks the node to identify itself", within, |node| node.introduced)
    }

    /// Reads until everything sent is acknowledged.
    ///
    /// # Errors
    /// When that does not happen within `within`.
    pub fn acknowledged(&mut self, within: Duration) -> Result<()> {
        self.serve("the gateway acknowledges a frame", within, |node| node.acked_through + 1 == node.next_sequence)
    }

    fn serve(&mut self, what: &str, within: Duration, done: impl Fn(&Node) -> bool) -> Result<()> {
        let mut buffer = [0; 512];
        let timeout = Timespec::try_from(within).map_err(|e| RigError::failed(what, e))?;
        while !done(self) {
            let mut fds = [PollFd::new(&self.wire, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&timeout)).map_err(|e| RigError::failed(what, e))?;
            if ready == 0 {
                return Err(RigError::failed(what, format!("nothing came for {} s", within.as_secs())));
            }
            let length = self.wire.read(&mut buffer).map_err(|e| RigError::failed(what, e))?;
            for byte in &buffer[..length] {
                let Some(Ok(Frame { message: Message::Down(downlink), .. })) = self.decoder.push(*byte) else {
                    continue;
                };
                self.heard(&downlink)?;
            }
        }
        Ok(())
    }

    fn heard(&mut self, downlink: &Downlink) -> Result<()> {
        match downlink {
            Downlink::Identify => {
                let hello = Hello {
                    uid: self.uid,
                    boot: BOOT,
                    firmware: FirmwareVersion { major: 0, minor: 1, patch: 0 },
                    capabilities: Capabilities::default(),
                    uptime_ms: self.uptime_ms(),
                    unacked_from: self.acked_through + 1,
                    next_sequence: self.next_sequence,
                    heartbeat_ms: 30_000,
                };
                self.introduced = true;
                self.write(Uplink::Hello(hello)).map(drop)
            }
            Downlink::Ack(Ack { boot: BOOT, through }) => {
                self.acked_through = self.acked_through.max(*through);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, uplink: Uplink) -> Result<SystemTime> {
        let mut buffer = [0; FRAME_BYTES_MAX];
        let frame = encode(&Frame::up(0, uplink), &mut buffer).map_err(|e| RigError::failed("encode a frame", e))?;
        let at = crate::now();
        self.wire.write_all(frame).map_err(|e| RigError::failed("write a frame", e))?;
        Ok(at)
    }

    fn uptime_ms(&self) -> u64 {
        let since = crate::now().duration_since(self.booted_at).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
