//! `gengfu enrol`: obtain a certificate, by a file that is carried or from a server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::identity::certificate;
use crate::identity::est::{Outcome, Proof};
use crate::identity::slots::{Slots, wanted_by};
use crate::identity::time::{Reading, TrustedTime};
use crate::identity::{Credentials, common_name};
use crate::settings::in_use_now;
use crate::setup;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a certificate request. The key is made on this box, or the one that waits for a certificate already is used again.
    Request {
        #[command(flatten)]
        of: Of,
        /// Where the request goes; standard output when absent.
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Make a new key even if one waits for its certificate: what is signed for that one is lost.
        #[arg(long)]
        new_key: bool,
    },
    /// Check the certificate that came back, and have the gateway try it.
    Install {
        #[command(flatten)]
        of: Of,
        /// The signed certificate, PEM (or PKCS#7), with those between it and the authority if there are any.
        certificate: PathBuf,
        /// Authority that signed it, where that is not the broker's (uplink.tls.ca_file).
        #[arg(long, value_name = "FILE")]
        authority: Option<PathBuf>,
    },
    /// Ask the enrolment server of [uplink.tls.enrol] now, for a first certificate or the next one.
    Online {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Debug, clap::Args)]
struct Of {
    /// The gateway's configuration, which says who it is.
    #[arg(long, short, value_name = "FILE", default_value = super::DEFAULT_CONFIG, env = "GENGFU_CONFIG")]
    config: PathBuf,
}

/// What all three need.
struct Desk {
    config: Config,
    name: String,
    slots: Slots,
    credentials: Credentials,
    now: Reading,
}

impl Desk {
    fn open(of: &Of) -> anyhow::Result<Self> {
        let config = in_use_now(&of.config)?;
        let managed = config.uplink.tls.as_ref().is_some_and(|tls| tls.is_managed);
        anyhow::ensure!(
            managed,
            "this gateway's identity is not managed: write identity = \"managed\" into [uplink.tls]"
        );
        let data_dir = &config.gateway.data_dir;
        std::fs::create_dir_all(data_dir).with_context(|| format!("create {}", data_dir.display()))?;
        let clock = Arc::new(SystemClock);
        let credentials = setup::credentials(&config, clock).context("[uplink.tls] is missing")?;
        let slots = Slots::open(&setup::identity_folder(&config))?;
        let name = common_name(&config.gateway.site, &config.gateway.name);
        let now = credentials.time().reading();
        Ok(Self { config, name, slots, credentials, now })
    }
}

pub(super) fn enrol(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::Request { of, out, new_key } => request(of, out.as_deref(), *new_key),
        Action::Install { of, certificate, authority } => install(of, certificate, authority.as_deref()),
        Action::Online { of } => super::block_on(online(of))?,
    }
}

fn request(of: &Of, out: Option<&Path>, new_key: bool) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(of)?;
    let request = desk.slots.request_key(new_key)?.request(&desk.name)?;
    match out {
        None => write!(std::io::stdout().lock(), "{request}")?,
        Some(file) => {
            std::fs::write(file, &request).with_context(|| format!("write {}", file.display()))?;
            eprintln!("gengfu: {} holds the request of {}", file.display(), desk.name);
        }
    }
    let (site, gateway) = (&desk.config.gateway.site, &desk.config.gateway.name);
    eprintln!(
        "gengfu: have it signed where the authority is (scripts/ca.sh sign REQUEST {site} {gateway}), then: gengfu enrol install CERTIFICATE"
    );
    Ok(ExitCode::SUCCESS)
}

fn install(of: &Of, file: &Path, authority: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(of)?;
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let origin = file.display().to_string();
    let given = if bytes.first() == Some(&0x30) {
        certificate::from_pkcs7(&bytes, &origin)?
    } else {
        certificate::from_pem(&bytes, &origin)?
    };
    let ca = authority.unwrap_or(&desk.credentials.source().ca).to_owned();
    let roots = crate::identity::tls::roots(&ca)?;
    let facts = desk.slots.offer(&given, wanted_by(&desk.name, &roots, &ca.display().to_string(), desk.now))?;
    eprintln!(
        "gengfu: the certificate {} of {} fits, valid until {}",
        facts.serial, facts.common_name, facts.not_after_at
    );
    eprintln!(
        "gengfu: the gateway tries it within seconds and uses it once the broker has taken it; see `gengfu identity`"
    );
    Ok(ExitCode::SUCCESS)
}

async fn online(of: &Of) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(of)?;
    let enrolment = setup::enrolment(&desk.config).context("there is no [uplink.tls.enrol] in the configuration")?;
    let time: TrustedTime = desk.credentials.time().clone();
    let client = enrolment.client(time)?;
    let current = desk.slots.current()?.filter(|pair| pair.facts.not_after_at > desk.now.earliest());
    let password = enrolment.password().map_err(anyhow::Error::msg)?;
    let proof = match (&current, &password) {
        (Some(pair), _) => Proof::Certificate(pair),
        (None, Some(password)) => Proof::Password { user: &enrolment.username, password },
        (None, None) => {
            anyhow::bail!("no one-time password: write it into the file that uplink.tls.enrol.password_file names")
        }
    };
    let request = desk.slots.request_key(false)?.request(&desk.name)?;
    let issued = match client.enrol(&request, proof).await? {
        Outcome::Issued(issued) => issued,
        Outcome::Later(wait) => {
            eprintln!(
                "gengfu: a person must approve it; ask again in {} s (the running gateway does so by itself)",
                wait.as_secs()
            );
            return Ok(ExitCode::from(super::NO));
        }
    };
    let roots = enrolment.authorities(&client, &desk.credentials).await;
    let facts = desk.slots.offer(&issued, wanted_by(&desk.name, &roots, &client.place.to_string(), desk.now))?;
    eprintln!(
        "gengfu: the certificate {} was issued, valid until {}; the gateway tries it now",
        facts.serial, facts.not_after_at
    );
    Ok(ExitCode::SUCCESS)
}
