//! Goal: whom we believe, at which time, and that faulty files never take a working configuration away. Method: a real rustls server and our
//! configuration shake hands in memory.

use std::io::{Read, Write};

use rustls::{ClientConnection, ServerConfig, ServerConnection};

use super::super::fault::{TlsFaultKind, explain};
use super::super::testing::{Authority, NOW, Years};
use super::super::time::tests::Wall;
use super::*;

/// Shakes hands with a server that shows `certificate`; the client's verdict.
fn shake(
    config: Arc<ClientConfig>,
    certificate: CertificateDer<'static>,
    key: &PrivateKey,
) -> Result<(), TlsFaultKind> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.der().unwrap())
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(config, ServerName::try_from("broker.example").unwrap()).unwrap();
    for _ in 0..4 {
        let mut there = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        server.read_tls(&mut there.as_slice()).unwrap();
        let _ = server.process_new_packets();
        let mut back = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut back = back.as_slice();
        while !back.is_empty() {
            client.read_tls(&mut back).unwrap();
            client.process_new_packets().map_err(|e| explain(&e).unwrap().kind)?;
        }
    }
    assert!(!client.is_handshaking());
    client.writer().write_all(b"ping").unwrap();
    let mut there = Vec::new();
    client.write_tls(&mut there).unwrap();
    server.read_tls(&mut there.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut got = [0; 4];
    server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping");
    Ok(())
}

struct Bench {
    dir: tempfile::TempDir,
    ca: Authority,
}

impl Bench {
    fn new() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
        std::fs::write(dir.path().join("ca.pem"), ca.0.pem()).unwrap();
        Self { dir, ca }
    }

    fn source(&self) -> Source {
        Source { ca: self.dir.path().join("ca.pem"), crl: None, own: Own::Nobody }
    }

    fn config(&self, wall: Arc<Wall>) -> Arc<ClientConfig> {
        let time = TrustedTime::remembered(wall, self.dir.path());
        Credentials::new(self.source(), time).client_config().unwrap()
    }

    fn verdict(&self, wall: &Arc<Wall>, years: Years) -> Result<(), TlsFaultKind> {
        let (certificate, key) = self.ca.server(&["broker.example"], years, 1);
        shake(self.config(wall.clone()), certificate, &key)
    }
}

#[test]
fn a_set_clock_is_believed_to_the_second() {
    let bench = Bench::new();
    let wall = Wall::at("2026-11-22T00:00:00Z", true);
    bench.verdict(&wall, NOW).unwrap();
    assert_eq!(bench.verdict(&wall, (2020, 2026)), Err(TlsFaultKind::Expired));
    assert_eq!(bench.verdict(&wall, (2027, 2028)), Err(TlsFaultKind::NotYetValid));
}

#[test]
fn an_unset_clock_keeps_no_alarm_in() {
    let bench = Bench::new();
    let wall = Wall::at("1970-01-01T00:00:00Z", false);
    bench.verdict(&wall, NOW).expect("a clock without a battery");
    bench.verdict(&wall, (2046, 2047)).expect("a certificate made after this box was built");
    *wall.now.lock().unwrap() = "2047-06-01T00:00:00Z".parse().unwrap();
    bench.verdict(&wall, (2020, 2045)).expect("a clock that is wrong in the other direction");
    assert_eq!(bench.verdict(&wall, (2001, 2002)), Err(TlsFaultKind::Expired), "over before the box was built");
}

#[test]
fn an_unset_clock_does_not_soften_authority_name_or_revocation() {
    let bench = Bench::new();
    let wall = Wall::at("1970-01-01T00:00:00Z", false);
    let (certificate, key) = Authority::new("ca").server(&["broker.example"], NOW, 1);
    assert_eq!(shake(bench.config(wall.clone()), certificate, &key), Err(TlsFaultKind::UnknownAuthority));
    let (certificate, key) = bench.ca.server(&["other.example"], NOW, 1);
    assert_eq!(shake(bench.config(wall.clone()), certificate, &key), Err(TlsFaultKind::WrongName));
    let crl = bench.dir.path().join("crl.pem");
    // Its own date is over since 2021: it still holds.
    std::fs::write(&crl, bench.ca.crl(66)).unwrap();
    let source = Source { crl: Some(crl.clone()), ..bench.source() };
    let listed = Credentials::new(source, TrustedTime::since_build(wall));
    for (serial, verdict) in [(66, Err(TlsFaultKind::Revoked)), (67, Ok(()))] {
        let (certificate, key) = bench.ca.server(&["broker.example"], NOW, serial);
        assert_eq!(shake(listed.client_config().unwrap(), certificate, &key), verdict);
    }
    std::fs::write(&crl, "nothing").unwrap();
    assert!(matches!(listed.read(), Err(TlsProblem::Crl { .. })));
}

#[test]
fn faulty_files_are_told_and_what_worked_stays_in_use() {
    let bench = Bench::new();
    let (ca, place) = (&bench.ca, bench.dir.path());
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let (cert, key_file) = (place.join("gw.crt"), place.join("gw.key"));
    let private = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&key_file, text).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    std::fs::write(&cert, certificate::to_pem(&[ca.client(&key, "a.b", NOW)])).unwrap();
    private(key.reveal());
    let own = Own::Files { cert: cert.clone(), key: key_file.clone() };
    let credentials = Credentials::new(
        Source { own, ..bench.source() },
        TrustedTime::since_build(Wall::at("2026-01-01T00:00:00Z", true)),
    );
    let first = credentials.client_config().unwrap();
    let stamps = credentials.stamps();
    private(other.reveal());
    assert!(matches!(credentials.read(), Err(TlsProblem::Mismatch { .. })));
    assert_ne!(credentials.stamps(), stamps, "a replaced file is noticed");
    assert!(Arc::ptr_eq(&first, &credentials.client_config().unwrap()));
    std::fs::remove_file(&cert).unwrap();
    assert!(matches!(credentials.read(), Err(TlsProblem::File { .. })));
    let slot = credentials.with_own(Own::Slot(place.join("next.pem")));
    assert!(matches!(slot.client_config(), Err(TlsProblem::NotEnrolled)));
}

#[tokio::test]
async fn who_holds_a_connection_is_told_of_a_renewal_also_when_it_came_before_the_question() {
    let bench = Bench::new();
    let credentials =
        Credentials::new(bench.source(), TrustedTime::since_build(Wall::at("2026-01-01T00:00:00Z", true)));
    let before = credentials.generation();
    let waiting = credentials.renewed_since(before);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    credentials.adopt(credentials.read().unwrap());
    waiting.await;
    credentials.renewed_since(before).await;
}
