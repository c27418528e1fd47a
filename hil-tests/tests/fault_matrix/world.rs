//! The surroundings of a row before anything goes wrong: how broker, certificates, access lists and the gateway's clock are set up. It owns their files in a
//! folder of the row's own; what happens to them is the stage's.

use std::path::{Path, PathBuf};

use gengfu::config::Protocol;
use hil_tests::broker::BrokerOptions;
use hil_tests::ca::{self, Authority, Leaf, Validity, mosquitto_listener};
use hil_tests::ports::Port;
use hil_tests::site::{GATEWAY, Plan, SITE};
use hil_tests::{Result, RigError};
use tempfile::TempDir;

use crate::rows::Setting;

/// Everybody without a name (the desk) may do everything; the gateway has its topics.
pub const ACL: &str = "topic readwrite #\n\nuser gw\ntopic readwrite gengfu/#\n";
/// The gateway may do everything but what matters.
pub const ACL_WITHOUT_EVENTS: &str = "topic readwrite #\n\nuser gw\ntopic read gengfu/#\ntopic write gengfu/v1/+/+/status\ntopic write \
                                      gengfu/v1/+/+/statement\ntopic write gengfu/v1/+/+/device/#\ntopic write \
                                      gengfu/v1/+/+/alarm/#\ntopic write gengfu/v1/+/+/reply/#\n";

/// What a row has beside its site.
pub struct World {
    /// The plan of the site.
    pub plan: Plan,
    /// Certificates, where the row has any.
    pub trust: Option<Trust>,
    /// The file that sets the gateway's clock, where the row sets it.
    pub clock: Option<PathBuf>,
    _dir: TempDir,
}

impl World {
    /// Prepares the surroundings of a setting.
    ///
    /// # Errors
    /// When files or certificates cannot be made, or a library is missing.
    pub fn prepare(setting: Setting, protocol: Protocol) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
        let mut plan = Plan { protocol, desk_proxied: true, mqtt_proxied: true, ..Plan::default() };
        let (mut trust, mut clock) = (None, None);
        match setting {
            Setting::Plain => {}
            Setting::Acl => {
                plan.broker.acl = Some(ACL.to_owned());
                plan.uplink_extra = "username = \"gw\"\n".to_owned();
            }
            Setting::Broker(lines) => plan.broker.extra = lines.iter().map(|&line| line.to_owned()).collect(),
            Setting::Tls => {
                let made = Trust::make(dir.path())?;
                plan.broker = BrokerOptions { extra: made.listener(false), ..plan.broker };
                plan.mqtt_proxied = false;
                plan.meets_port = Some(made.port.number());
                plan.uplink_extra = made.uplink();
                trust = Some(made);
            }
            Setting::Clock(at) => {
                let library = faketime().map_err(|e| RigError::failed("find libfaketime", e))?;
                let file = dir.path().join("clock");
                set_clock(&file, at)?;
                plan.environment = [
                    ("LD_PRELOAD", library.display().to_string()),
                    ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                    ("FAKETIME_NO_CACHE", "1".to_owned()),
                    // Only the time of day is wrong on such a box; time-outs go on.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                ]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
                clock = Some(file);
            }
        }
        Ok(Self { plan, trust, clock, _dir: dir })
    }
}

/// Sets the gateway's clock: an offset to the right time, as in `-3600` (seconds) or `-2000d`.
///
/// # Errors
/// When the file cannot be written.
pub fn set_clock(file: &Path, offset: &str) -> Result<()> {
    ca::write(file, &format!("{offset}\n"))
}

/// The library that gives a program a clock of its own.
///
/// # Errors
/// When it is not installed.
pub fn faketime() -> std::result::Result<PathBuf, String> {
    let lib = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = lib.chain([PathBuf::from("/usr/lib")]).map(|dir| dir.join("faketime/libfaketimeMT.so.1"));
    places.find(|file| file.is_file()).ok_or_else(|| "libfaketime is not installed (make setup installs it)".to_owned())
}

/// Certificates of broker and gateway, and the authorities behind them.
pub struct Trust {
    dir: PathBuf,
    ours: Authority,
    foreign: Authority,
    /// The gateway's present certificate.
    gateway: Leaf,
    port: Port,
}

impl Trust {
    fn make(dir: &Path) -> Result<Self> {
        let (ours, foreign) = (Authority::new("city-ca")?, Authority::new("city-ca")?);
        let gateway = ours.client(&format!("{SITE}.{GATEWAY}"), Validity::Now)?;
        ca::write(&dir.join("ca.pem"), &ours.pem())?;
        ca::write(&dir.join("crl.pem"), &ours.crl(&[])?)?;
        gateway.write(dir, "gateway")?;
        let trust = Self { dir: dir.to_owned(), ours, foreign, gateway, port: Port::reserve()? };
        trust.broker_has(Validity::Now, false)?;
        Ok(trust)
    }

    /// The lines of the broker's TLS listener.
    #[must_use]
    pub fn listener(&self, with_revocations: bool) -> Vec<String> {
        let file = |name: &str| self.dir.join(name);
        let pair = (file("server.crt"), file("server.key"));
        let crl = file("crl.pem");
        let revoked = with_revocations.then_some(crl.as_path());
        mosquitto_listener(self.port.number(), &file("ca.pem"), (&pair.0, &pair.1), revoked, true)
    }

    fn uplink(&self) -> String {
        let dir = self.dir.display();
        format!(
            "[uplink.tls]\nca_file = \"{dir}/ca.pem\"\ncert_file = \"{dir}/gateway.crt\"\nkey_file = \"{dir}/gateway.key\"\n"
        )
    }

    /// Gives the broker another certificate, valid at its next start.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn broker_has(&self, validity: Validity, of_a_stranger: bool) -> Result<()> {
        let authority = if of_a_stranger { &self.foreign } else { &self.ours };
        authority.server(&["127.0.0.1"], validity)?.write(&self.dir, "server").map(|_| ())
    }

    /// Gives the gateway another certificate, used from its next connection on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn gateway_has(&mut self, validity: Validity) -> Result<()> {
        self.gateway = self.ours.client(&format!("{SITE}.{GATEWAY}"), validity)?;
        self.gateway.write(&self.dir, "gateway").map(|_| ())
    }

    /// Revokes the gateway's present certificate; the broker knows from its next start on.
    ///
    /// # Errors
    /// When the list cannot be made.
    pub fn revoke_gateway(&self) -> Result<()> {
        ca::write(&self.dir.join("crl.pem"), &self.ours.crl(&[&self.gateway])?)
    }
}
