//! `gengfu export`: the journal as a file that proves itself.
//!
//! Owns how the journal is fetched: page by page from the running gateway, or from a stopped one's disk. The file's form is the contract's
//! ([`gengfu_contract::export`]). It changes nothing on the gateway.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use gengfu_contract::export::{Closing, ClosingStatement, Header};
use gengfu_outbox::Outbox;

use super::SocketArgs;
use super::signature;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::identity::slots::Slots;
use crate::local::journal::{JournalPage, PAGE_EVENTS, page};
use crate::local::socket::{Answer, Query, SocketError, ask};
use crate::settings::in_use_now;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    /// Where to write it; standard output when it is not given.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// From this sequence; the first that is still kept when it is not given.
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    from: u64,
    /// Sign with this certificate (PEM) instead of the one in the configuration's `[uplink.tls]`.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

/// Where the journal is read.
enum Source {
    Running(PathBuf),
    Stopped(Box<Outbox>),
}

impl Source {
    /// The running gateway when one answers, else its disk.
    fn open(args: &SocketArgs) -> anyhow::Result<Self> {
        let path = args.path()?;
        match super::block_on(ask(&path, &Query::Journal { from: 1, limit: 0 }))? {
            Ok(_) => Ok(Source::Running(path)),
            Err(error @ SocketError::Connect { .. }) if args.socket.is_none() => {
                let config = in_use_now(&args.config)?;
                let folder = config.gateway.data_dir.join("outbox");
                ensure!(folder.is_dir(), "{error}; and there is no stopped gateway's journal in {}", folder.display());
                let outbox = Outbox::open(crate::setup::outbox_options(&config))
                    .with_context(|| format!("{error}; open the journal in {}", folder.display()))?;
                Ok(Source::Stopped(Box::new(outbox)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn page(&self, from: u64) -> anyhow::Result<JournalPage> {
        match self {
            Source::Stopped(outbox) => Ok(page(outbox, from, PAGE_EVENTS)?),
            Source::Running(path) => match super::block_on(ask(path, &Query::Journal { from, limit: PAGE_EVENTS }))?? {
                Answer::Journal(page) => Ok(*page),
                _ => bail!("the gateway answered something else; is it another version?"),
            },
        }
    }
}

pub(super) fn export(args: &Args) -> anyhow::Result<ExitCode> {
    let source = Source::open(&args.socket)?;
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path).with_context(|| format!("write {}", path.display()))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut out = BufWriter::new(&mut out);
    let mut page = source.page(args.from)?;
    let (last, head) = (page.sequence, page.head.clone());
    let header = header(&page, args)?;
    serde_json::to_writer(&mut out, &header)?;
    writeln!(out)?;
    let mut next = header.first;
    while next <= last {
        let Some(furthest) = page.events.last().map(|event| event.sequence) else { break };
        for event in page.events.iter().filter(|event| event.sequence <= last) {
            writeln!(out, "{}", event.body)?;
        }
        next = furthest.saturating_add(1);
        if next <= last {
            page = source.page(next)?;
        }
    }
    let statement = ClosingStatement { header, sequence: last, head, at: SystemClock.now() };
    let signature = sign(args, &statement)?;
    let signed = if signature.is_some() { "signed" } else { "not signed: no key is configured" };
    serde_json::to_writer(&mut out, &Closing::new(statement, signature))?;
    writeln!(out)?;
    out.flush()?;
    eprintln!("gengfu: exported up to sequence {last}, {signed}; check it with `gengfu verify FILE`");
    Ok(ExitCode::SUCCESS)
}

/// The first event tells whose journal it is and what it must carry; an empty journal is told by the configuration.
fn header(page: &JournalPage, args: &Args) -> anyhow::Result<Header> {
    let contract = gengfu_contract::CONTRACT_VERSION.to_owned();
    let Some(first) = page.events.first() else {
        ensure!(args.from > page.sequence, "the journal's events from {} on cannot be read", args.from);
        let config = in_use_now(&args.socket.config)?;
        let source = format!("/gengfu/{}/{}", config.gateway.site, config.gateway.name);
        let first = page.sequence.saturating_add(1);
        return Ok(Header { gengfu_export: 1, source, contract, first, anchor: page.head.clone() });
    };
    let event: serde_json::Value = serde_json::from_str(&first.body).context("read the first event")?;
    let source = event["source"].as_str().context("the first event has no source")?.to_owned();
    Ok(Header { gengfu_export: 1, source, contract, first: first.sequence, anchor: first.prev_hash.clone() })
}

/// With the key that is given, or with the one the uplink uses, where it can be read.
fn sign(args: &Args, statement: &ClosingStatement) -> anyhow::Result<Option<gengfu_contract::export::Signature>> {
    let bytes = statement.signed_bytes();
    if let (Some(certificate), Some(key)) = (&args.certificate, &args.key) {
        return Ok(Some(signature::sign(&bytes, certificate, key)?));
    }
    let Some((certificate, key)) = in_use_now(&args.socket.config).ok().and_then(|config| own_files(&config)) else {
        return Ok(None);
    };
    match signature::sign(&bytes, &certificate, &key) {
        Ok(signature) => Ok(Some(signature)),
        Err(error) => {
            eprintln!("gengfu: not signed: {error:#}");
            Ok(None)
        }
    }
}

/// The certificate and the key the uplink shows to the broker: made on this box, or the installer's files.
fn own_files(config: &Config) -> Option<(PathBuf, PathBuf)> {
    let tls = config.uplink.tls.as_ref()?;
    if tls.is_managed {
        // One file holds both.
        let pair = Slots::current_file(&crate::setup::identity_folder(config));
        return pair.exists().then(|| (pair.clone(), pair));
    }
    Some((tls.cert_file.clone()?, tls.key_file.clone()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gengfu_contract::export::{Verdict, Verifier};
    use gengfu_contract::words::Lane;

    use super::*;
    use crate::identity::testing::{Authority, NOW};
    use crate::uplink::testing::{at, journal};

    /// A stopped gateway with three events in its journal, whose key was made on the box. Gives the configuration's file.
    fn stopped_gateway(dir: &Path) -> PathBuf {
        let (data, config) = (dir.join("data"), dir.join("gengfu.toml"));
        let codes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/codes/gengfu.toml");
        let text = format!(
            "[gateway]\nsite = \"s\"\nname = \"g\"\ndata_dir = {data:?}\ncodes = [{codes:?}]\n\
             location = {{ division = \"440402\", text = \"Block 7\" }}\n\
             [uplink]\nbroker = \"127.0.0.1:8883\"\n[uplink.tls]\nca_file = {:?}\nidentity = \"managed\"\n",
            dir.join("ca.pem")
        );
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(dir.join("ca.pem"), Authority::new("broker-ca").0.pem()).unwrap();
        std::fs::write(&config, text).unwrap();
        let outbox = Outbox::open(crate::setup::outbox_options(&Config::load(&config).unwrap())).unwrap();
        for (n, id) in ["e1", "e2", "e3"].into_iter().enumerate() {
            journal(&outbox, id, Lane::Care, at(i64::try_from(n).unwrap()));
        }
        config
    }

    /// The certificate of a new key in the slot of the one in use.
    fn enrolled(place: &Path, authority: &Authority) -> Vec<u8> {
        let mut slots = Slots::open(place).unwrap();
        let key = slots.request_key(false).unwrap();
        let certificate = authority.client(&key, "s.g", NOW);
        let roots = [authority.der()];
        let time = crate::identity::time::Reading::Known(at(0));
        let wanted = crate::identity::slots::wanted_by("s.g", &roots, "ca.pem", time);
        slots.offer(std::slice::from_ref(&certificate), wanted).unwrap();
        slots.promote().unwrap();
        certificate.as_ref().to_vec()
    }

    fn exported(config: &Path, file: &Path) -> Verdict {
        let socket = SocketArgs { socket: None, config: config.to_owned() };
        let args = Args { socket, output: Some(file.to_owned()), from: 1, certificate: None, key: None };
        assert_eq!(export(&args).unwrap(), ExitCode::SUCCESS);
        let mut verifier = Verifier::default();
        std::fs::read_to_string(file).unwrap().lines().for_each(|line| verifier.line(line.as_bytes()));
        let verdict = verifier.finish();
        assert!(verdict.faults.is_empty() && verdict.events == 3, "{verdict:?}");
        verdict
    }

    fn pem(dir: &Path, der: &[u8]) -> PathBuf {
        let file = dir.join("certificate.pem");
        std::fs::write(&file, crate::identity::certificate::to_pem(&[der.to_vec().into()])).unwrap();
        file
    }

    #[test]
    fn an_export_is_signed_with_the_key_that_was_made_on_the_box_and_with_the_one_in_use_after_a_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let (config, file) = (stopped_gateway(dir.path()), dir.path().join("export.jsonl"));
        assert!(exported(&config, &file).closing.unwrap().signature.is_none(), "not enrolled yet");
        let (place, authority) = (dir.path().join("data/identity"), Authority::new("issuer"));
        let first = enrolled(&place, &authority);
        let check = |verdict: &Verdict, expected: &Path| {
            let closing = verdict.closing.clone().unwrap();
            signature::check(&closing.statement.signed_bytes(), &closing.signature.unwrap(), Some(expected)).unwrap()
        };
        let signed = exported(&config, &file);
        let words = check(&signed, &pem(dir.path(), &first)).unwrap();
        assert!(words.contains("signed by the certificate"), "{words}");
        let second = enrolled(&place, &authority);
        assert_ne!(first, second);
        let renewed = exported(&config, &file);
        assert!(check(&renewed, &pem(dir.path(), &second)).is_ok());
        assert!(check(&renewed, &pem(dir.path(), &first)).unwrap_err().contains("another certificate"));
        let mut forged = renewed.closing.unwrap();
        forged.statement.sequence = 2;
        let (bytes, signed) = (forged.statement.signed_bytes(), forged.signature.unwrap());
        assert!(signature::check(&bytes, &signed, None).unwrap().unwrap_err().contains("does not fit"));
    }

    #[test]
    fn a_next_certificate_that_no_broker_has_taken_yet_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (config, file) = (stopped_gateway(dir.path()), dir.path().join("export.jsonl"));
        let (place, authority) = (dir.path().join("data/identity"), Authority::new("issuer"));
        let current = enrolled(&place, &authority);
        let mut slots = Slots::open(&place).unwrap();
        let key = slots.request_key(false).unwrap();
        let roots = [authority.der()];
        let time = crate::identity::time::Reading::Known(at(0));
        let wanted = crate::identity::slots::wanted_by("s.g", &roots, "ca.pem", time);
        slots.offer(&[authority.client(&key, "s.g", NOW)], wanted).unwrap();
        let closing = exported(&config, &file).closing.unwrap();
        let (bytes, signed) = (closing.statement.signed_bytes(), closing.signature.unwrap());
        assert!(signature::check(&bytes, &signed, Some(&pem(dir.path(), &current))).unwrap().is_ok());
    }
}
