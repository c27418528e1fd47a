//! Goal: who may talk to whom, and that it is told in words a technician can act on; a certificate's whole life (request, signing, trial,
//! renewal, refusal) without a restart and without a moment in which no certificate works. Method: a real mosquitto with mutual TLS, the
//! real gateway, the file-based authority of `scripts/ca.sh`, and an enrolment server over real HTTPS.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use hil_tests::broker::{Broker, BrokerOptions, Memory};
use hil_tests::ca::{self, Authority, Leaf, Validity};
use hil_tests::clip::repository;
use hil_tests::gateway::Gateway;
use hil_tests::ports::Port;
use hil_tests::process::{Process, eventually, run};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::Value;

/// The gateway's common name.
const NAME: &str = "hil.gw-1";
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let parts = || {
        need::all([need::tool("mosquitto"), need::tool("mosquitto_pub"), need::tool("openssl"), need::tool("python3")])
    };
    skip::main(vec![
        skip::test("each_fault_of_tls_is_told_by_its_kind_with_a_remedy", parts(), faults),
        skip::test("a_key_that_others_can_read_is_refused_and_the_gateway_watches_on", parts(), exposed),
        skip::test("replaced_files_are_tried_first_and_taken_without_a_restart", parts(), hot_reload),
        skip::test("a_carried_request_becomes_a_certificate_that_is_renewed_and_rolled_back", parts(), carried),
        skip::test("an_enrolment_server_gives_the_first_certificate_and_renews_it", parts(), enrolled_online),
        skip::test("the_shipped_broker_keeps_a_lost_gateway_out_once_it_is_revoked", parts(), lost_box),
    ])
}

/// A broker with mutual TLS on a port of its own, and a folder for everything.
struct Bench {
    dir: tempfile::TempDir,
    broker: Broker,
    tls: Port,
}

impl Bench {
    /// The broker shows `server`, believes clients of `ca`, and knows these revoked ones.
    fn start(ca_pem: &str, server: &Leaf, crl: Option<&str>) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
        let tls = Port::reserve()?;
        let place = dir.path();
        ca::write(&place.join("ca.pem"), ca_pem)?;
        let (cert, key) = server.write(place, "server")?;
        let revoked = crl.map(|_| place.join("crl.pem"));
        if let (Some(file), Some(text)) = (&revoked, crl) {
            ca::write(file, text)?;
        }
        let lines =
            ca::mosquitto_listener(tls.number(), &place.join("ca.pem"), (&cert, &key), revoked.as_deref(), true);
        let broker = Broker::start(&place.join("broker"), &BrokerOptions { extra: lines, ..BrokerOptions::default() })?;
        Ok(Self { dir, broker, tls })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The gateway's configuration; `tls` is what stands in `[uplink.tls]` below the CA.
    fn config(&self, tls: &str) -> String {
        let (root, place) = (repository().display().to_string(), self.dir.path().display().to_string());
        format!(
            r#"[gateway]
site = "hil"
name = "gw-1"
data_dir = "{place}/data"
codes = ["{root}/config/codes/gengfu.toml"]

[uplink]
broker = "127.0.0.1:{}"
keep_alive = "5s"

[uplink.tls]
ca_file = "{place}/gateway-ca.pem"
{tls}

[local]
socket = "{place}/gengfu.sock"
"#,
            self.tls.number()
        )
    }

    fn gateway(&self, trusted_pem: &str, tls: &str) -> Result<Gateway> {
        ca::write(&self.path("gateway-ca.pem"), trusted_pem)?;
        Gateway::launch(self.dir.path(), &self.config(tls))
    }

    /// `cert_file` and `key_file` of this pair.
    fn pair(&self, leaf: &Leaf) -> Result<String> {
        let (cert, key) = leaf.write(self.dir.path(), "gw")?;
        Ok(format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", cert.display(), key.display()))
    }
}

/// A connection stands. In some of these tests nobody is there to confirm anything, and the broker says so.
fn is_online(status: &Value) -> bool {
    let state = &status["uplink"]["state"];
    state == "online" || (state == "no_receipts" && status["uplink"]["cause"] == "nobody_subscribed")
}

fn says(status: &Value, part: &str) -> bool {
    status["uplink"]["detail"].as_str().is_some_and(|detail| detail.contains(part))
        && status["uplink"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty())
}

/// Name; what the broker shows and has revoked; what the gateway shows and believes; what it then says.
type Case<'a> = (&'a str, &'a Leaf, Option<&'a Leaf>, Option<&'a Leaf>, &'a Authority, &'a str);

fn faults() -> Result<()> {
    let (ours, foreign) = (Authority::new("ours")?, Authority::new("foreign")?);
    let server = ours.server(&["127.0.0.1"], Validity::Now)?;
    let client = ours.client(NAME, Validity::Now)?;
    let revoked_server = ours.server(&["127.0.0.1"], Validity::Now)?;
    let revoked = ours.client(NAME, Validity::Now)?;
    // What the broker shows and knows; what the gateway shows and believes; what it then says.
    let cases: Vec<Case> = vec![
        ("good", &server, Some(&client), None, &ours, ""),
        ("broker unknown", &server, Some(&client), None, &foreign, "an authority that this gateway does not know"),
        ("broker revoked", &revoked_server, Some(&client), None, &ours, "the broker's certificate was revoked"),
        ("no certificate", &server, None, None, &ours, "asks for a certificate"),
        ("ours revoked", &server, Some(&revoked), Some(&revoked), &ours, "refuses this gateway's certificate: revoked"),
    ];
    let expired = ours.server(&["127.0.0.1"], Validity::Expired)?;
    let misnamed = ours.server(&["other.example"], Validity::Now)?;
    let late = ours.client(NAME, Validity::Expired)?;
    let stranger = foreign.client(NAME, Validity::Now)?;
    let more = vec![
        ("broker expired", &expired, Some(&client), None, &ours, "the broker's certificate has expired"),
        ("broker misnamed", &misnamed, Some(&client), None, &ours, "for another host name"),
        ("ours expired", &server, Some(&late), None, &ours, "refuses this gateway's certificate: expired"),
        ("ours unknown", &server, Some(&stranger), None, &ours, "does not know who signed it"),
    ];
    for (what, shown, own, kept_out, believed, words) in cases.into_iter().chain(more) {
        let crl = kept_out.map(|leaf| ours.crl(&[leaf])).transpose()?;
        let bench = Bench::start(&ours.pem(), shown, crl.as_deref())?;
        let mut tls = own.map(|leaf| bench.pair(leaf)).transpose()?.unwrap_or_default();
        let list = bench.path("brokers.crl");
        ca::write(&list, &believed.crl(&[&revoked_server])?)?;
        tls.push_str(&format!("crl_file = \"{}\"\n", list.display()));
        let mut gateway = bench.gateway(&believed.pem(), &tls)?;
        let expected = |status: &Value| if words.is_empty() { is_online(status) } else { says(status, words) };
        gateway.wait_until(&format!("{what}: {words}"), PATIENCE, expected)?;
    }
    Ok(())
}

fn exposed() -> Result<()> {
    let ours = Authority::new("ours")?;
    let bench = Bench::start(&ours.pem(), &ours.server(&["127.0.0.1"], Validity::Now)?, None)?;
    let tls = bench.pair(&ours.client(NAME, Validity::Now)?)?;
    let mode = |bits| {
        let done = fs::set_permissions(bench.path("gw.key"), fs::Permissions::from_mode(bits));
        done.map_err(|e| RigError::failed("change the key's mode", e))
    };
    mode(0o644)?;
    let mut gateway = bench.gateway(&ours.pem(), &tls)?;
    let status = gateway.wait_until("the exposed key is told", PATIENCE, |status| says(status, "chmod 600"))?;
    assert!(status["gateway"]["started_at"].is_string(), "the gateway runs all the same");
    mode(0o600)?;
    gateway.wait_until("mended, it is used without a restart", PATIENCE, is_online)?;
    Ok(())
}

fn hot_reload() -> Result<()> {
    let (ours, foreign) = (Authority::new("ours")?, Authority::new("foreign")?);
    let bench = Bench::start(&ours.pem(), &ours.server(&["127.0.0.1"], Validity::Now)?, None)?;
    let tls = bench.pair(&ours.client(NAME, Validity::Now)?)?;
    let mut gateway = bench.gateway(&ours.pem(), &tls)?;
    let first = gateway.wait_until("online", PATIENCE, |s| is_online(s) && s["identity"]["current"].is_object())?;
    let serial = |status: &Value| status["identity"]["current"]["serial"].clone();

    bench.pair(&foreign.client(NAME, Validity::Now)?)?;
    let told = |status: &Value| status["identity"]["problem"].as_str().is_some_and(|p| p.contains("tried and fail"));
    let after = gateway.wait_until("foreign files are tried and told", PATIENCE, told)?;
    assert!(is_online(&after) && after["uplink"]["connects"] == first["uplink"]["connects"], "{after:#}");
    assert_eq!(serial(&after), serial(&first), "what worked stays in use");

    bench.pair(
        &ours
            .client(NAME, Validity::Around { since: Duration::from_secs(60), left: Duration::from_secs(3 * 86_400) })?,
    )?;
    let renewed = |status: &Value| {
        serial(status) != serial(&first) && is_online(status) && status["identity"]["problem"].is_null()
    };
    let last = gateway.wait_until("good files are taken", PATIENCE, renewed)?;
    assert_eq!(last["gateway"]["boot"], first["gateway"]["boot"], "without a restart");
    let (_, out, _) = gateway.command_output(&["identity"])?;
    assert!(out.contains(NAME), "{out}");
    Ok(())
}

/// `scripts/ca.sh` in `dir`.
fn authority(words: &[&str]) -> Result<String> {
    let mut command = Command::new("bash");
    command.arg(repository().join("scripts/ca.sh")).args(words);
    run(command)
}

/// An authority made by the script, and a broker's pair from it.
fn scripted(dir: &Path) -> Result<(String, Leaf)> {
    let text = |path: &Path| path.display().to_string();
    let place = text(&dir.join("authority"));
    authority(&["init", &place, "Test CA"])?;
    let (key, request) = (dir.join("b.key"), dir.join("b.csr"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
    ]);
    run({
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&request);
        openssl
    })?;
    let cert_pem = authority(&["server", &place, &text(&request), "127.0.0.1"])?;
    Ok((place, Leaf::from_pem(cert_pem, read(&key)?)))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| RigError::failed(format!("read {}", path.display()), e))
}

fn carried() -> Result<()> {
    let made = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let (place, server) = scripted(made.path())?;
    let (ca_pem, crl) = (read(&made.path().join("authority/ca.pem"))?, read(&made.path().join("authority/crl.pem"))?);
    let mut bench = Bench::start(&ca_pem, &server, Some(&crl))?;
    let mut gateway = bench.gateway(&ca_pem, "identity = \"managed\"")?;
    gateway.wait_until("no certificate yet", PATIENCE, |status| says(status, "no certificate yet"))?;

    let (request, cert) = (bench.path("gw.csr"), bench.path("gw.crt"));
    let (request_text, cert_text) = (request.display().to_string(), cert.display().to_string());
    let enrol = |gateway: &Gateway, words: &[&str]| -> Result<(Option<i32>, String)> {
        let (code, _, err) = gateway.command_output(&[&["enrol"], words].concat())?;
        Ok((code, err))
    };
    let signed = |gateway: &Gateway, verb: &str| -> Result<()> {
        assert_eq!(enrol(gateway, &["request", "--out", &request_text])?.0, Some(0));
        ca::write(&cert, &authority(&[verb, &place, &request_text, "hil", "gw-1"])?)
    };
    signed(&gateway, "sign")?;
    // A certificate for another box's key is refused before anything changes.
    let good = read(&cert)?;
    ca::write(&cert, &Authority::new("Test CA")?.client(NAME, Validity::Now)?.cert_pem)?;
    let (code, err) = enrol(&gateway, &["install", &cert_text])?;
    assert!(code == Some(2) && err.contains("another key"), "{code:?} {err}");
    ca::write(&cert, &good)?;
    let (code, err) = enrol(&gateway, &["install", &cert_text])?;
    assert_eq!(code, Some(0), "{err}");
    let first =
        gateway.wait_until("online with it", PATIENCE, |s| is_online(s) && s["identity"]["current"].is_object())?;
    for file in ["current.pem", "../identity"] {
        let found = fs::metadata(bench.path("data/identity").join(file))
            .map_err(|e| RigError::failed("look at the slot", e))?;
        assert_eq!(found.permissions().mode() & 0o077, 0, "{file} is its owner's only");
    }

    signed(&gateway, "renew")?;
    assert_eq!(enrol(&gateway, &["install", &cert_text])?.0, Some(0));
    let serial = |status: &Value| status["identity"]["current"]["serial"].clone();
    let second = gateway.wait_until("renewed", PATIENCE, |s| serial(s) != serial(&first) && is_online(s))?;
    assert_eq!(second["gateway"]["boot"], first["gateway"]["boot"]);

    // The next one is revoked before it is tried: the gateway stays on the one that works.
    signed(&gateway, "renew")?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-serial", "-in"]).arg(&cert);
    let number = run(openssl)?.trim().trim_start_matches("serial=").to_owned();
    authority(&["revoke", &place, &number])?;
    ca::write(&bench.path("crl.pem"), &read(&made.path().join("authority/crl.pem"))?)?;
    bench.broker.restart(Memory::Keep)?;
    gateway.wait_until("online after the broker's restart", PATIENCE, is_online)?;
    assert_eq!(enrol(&gateway, &["install", &cert_text])?.0, Some(0));
    let given_up = |status: &Value| status["identity"]["refused"].is_object();
    let last = gateway.wait_until("given up", 2 * PATIENCE, given_up)?;
    assert!(is_online(&last) && serial(&last) == serial(&second), "{last:#}");
    let alarms = last["alarms"].as_array().cloned().unwrap_or_default();
    let told = |status: &Value| {
        status["alarms"].as_array().is_some_and(|all| all.iter().any(|a| a["kind"] == "certificate_expiring"))
    };
    assert!(told(&last) || gateway.wait_until("told as a trouble", PATIENCE, told).is_ok(), "{alarms:?}");
    Ok(())
}

fn enrolled_online() -> Result<()> {
    let made = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let (place, server) = scripted(made.path())?;
    let ca_pem = read(&made.path().join("authority/ca.pem"))?;
    let bench = Bench::start(&ca_pem, &server, None)?;
    let port = Port::reserve()?;
    let mut python = Command::new("python3");
    python.arg(repository().join("hil-tests/rig/est_server.py"));
    python.args([
        "--authority",
        &place,
        "--port",
        &port.number().to_string(),
        "--user",
        "gw-1",
        "--password",
        "one-time",
    ]);
    python.arg("--cert").arg(bench.path("server.crt")).arg("--key").arg(bench.path("server.key"));
    // Past two thirds of its validity: the first certificate is due for renewal at once.
    python.args(["--first-since-days", "300", "--first-left-days", "60"]);
    let mut est = Process::spawn("est", python, bench.dir.path())?;
    est.wait_for_line("ready", PATIENCE)?;

    let password = bench.path("password");
    ca::write(&password, "wrong\n")?;
    let tls = format!(
        "identity = \"managed\"\n[uplink.tls.enrol]\nurl = \"https://127.0.0.1:{}\"\nusername = \"gw-1\"\npassword_file = \"{}\"\n",
        port.number(),
        password.display()
    );
    let mut gateway = bench.gateway(&ca_pem, &tls)?;
    let refused =
        |status: &Value| status["identity"]["problem"].as_str().is_some_and(|p| p.contains("does not accept"));
    gateway.wait_until("the wrong password is told", PATIENCE, refused)?;
    est.wait_for_line("\" 401", PATIENCE)?;
    ca::write(&password, "one-time\n")?;
    let (code, _, err) = gateway.command_output(&["identity", "reload"])?;
    assert_eq!(code, Some(0), "{err}");
    // The first lasts 60 days more and is renewed at once, with the certificate instead of the password, for a year.
    let is_renewed = |status: &Value| {
        let (renews, now) = (status["identity"]["renews_at"].as_str(), status["gateway"]["now"].as_str());
        is_online(status)
            && renews > now
            && status["identity"]["next"].is_null()
            && status["identity"]["problem"].is_null()
    };
    gateway.wait_until("enrolled and renewed", 2 * PATIENCE, is_renewed)?;
    est.wait_for_line("/simplereenroll HTTP/1.1\" 200", PATIENCE)?;
    Ok(())
}

/// The shipped configuration and ACL, with the line for revoked certificates switched on as its comment says.
fn lost_box() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
    let (place, port) = (dir.path().display().to_string(), Port::reserve()?);
    let ours = Authority::new("ours")?;
    ca::write(&dir.path().join("ca.crt"), &ours.pem())?;
    ours.server(&["127.0.0.1"], Validity::Now)?.write(dir.path(), "server")?;
    let (lost, kept) =
        (ours.client("spring-street.gw-01", Validity::Now)?, ours.client("spring-street.gw-02", Validity::Now)?);
    lost.write(dir.path(), "lost")?;
    kept.write(dir.path(), "kept")?;
    ca::write(&dir.path().join("revoked.pem"), &ours.crl(&[&lost])?)?;
    let shipped = |name: &str| read(&repository().join("config/broker").join(name));
    let config = shipped("mosquitto.conf")?
        .replace("#crlfile", "crlfile")
        .replace("/etc/gengfu/broker", &place)
        .replace("/var/lib/mosquitto", &place)
        .replace("listener 8883", &format!("listener {} 127.0.0.1", port.number()))
        + "user root\nlog_dest stderr\n";
    ca::write(&dir.path().join("mosquitto.conf"), &config)?;
    ca::write(&dir.path().join("acl"), &shipped("acl")?)?;
    let mut command = Command::new(need::find_tool("mosquitto").unwrap_or_else(|| "mosquitto".into()));
    command.arg("-c").arg(dir.path().join("mosquitto.conf"));
    let process = Process::spawn("mosquitto", command, dir.path())?;
    let publish = |who: &str, gateway: &str| {
        let mut client = Command::new("mosquitto_pub");
        client.current_dir(dir.path()).args([
            "-V",
            "5",
            "-h",
            "127.0.0.1",
            "-p",
            &port.number().to_string(),
            "-q",
            "1",
        ]);
        client.args(["--cafile", "ca.crt", "--cert", &format!("{who}.crt"), "--key", &format!("{who}.key")]);
        client.args(["-m", "x", "-t", &format!("gengfu/v1/spring-street/{gateway}/event")]);
        run(client).map_err(|e| e.to_string())
    };
    eventually("the kept gateway is let in", PATIENCE, || {
        publish("kept", "gw-02").map_err(|e| format!("{e}\n{}", process.tail()))
    })?;
    publish("lost", "gw-01").expect_err("a revoked gateway was let in");
    assert!(process.output().contains("verify failed"), "the broker says why: {}", process.tail());
    Ok(())
}
