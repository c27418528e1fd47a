//! The broker configuration we ship does what it promises. Method: run a real mosquitto with exactly those
//! files, only their places and the port changed, make keys with openssl, and try every right and wrong with
//! mosquitto's own clients.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use hil_tests::clip::repository;
use hil_tests::ports::Port;
use hil_tests::process::{Process, eventually, run};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};

const SITE: &str = "gengfu/v1/spring-street";
const GATEWAY: &str = "spring-street.gw-01";
const OTHER: &str = "spring-street.gw-02";
const CENTRE: &str = "dispatch";

fn main() -> ExitCode {
    let parts = || need::all([need::tool("mosquitto"), need::tool("mosquitto_pub"), need::tool("openssl")]);
    skip::main(vec![
        skip::test("shipped_broker_config_lets_each_write_its_own_and_nothing_else", parts(), writing),
        skip::test("shipped_broker_config_shows_a_gateway_only_its_own_commands", parts(), reading),
        skip::test("shipped_broker_config_refuses_clients_without_our_certificate", parts(), strangers),
    ])
}

/// The shipped broker, running, and keys for its clients.
struct Shipped {
    dir: tempfile::TempDir,
    port: Port,
    process: Process,
}

impl Shipped {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| RigError::failed("make a temporary folder", e))?;
        let port = Port::reserve()?;
        let place = dir.path().display().to_string();
        let shipped = |name: &str| {
            let file = repository().join("config/broker").join(name);
            fs::read_to_string(&file).map_err(|e| RigError::failed(format!("read {}", file.display()), e))
        };
        let config = shipped("mosquitto.conf")?
            .replace("/etc/gengfu/broker", &place)
            .replace("/var/lib/mosquitto", &place)
            .replace("listener 8883", &format!("listener {} 127.0.0.1", port.number()))
            // So that it may read this folder when started as root, and so that its words can be seen.
            + "user root\nlog_dest stderr\n";
        let written = fs::write(dir.path().join("mosquitto.conf"), config)
            .and_then(|()| fs::write(dir.path().join("acl"), shipped("acl").unwrap_or_default()));
        written.map_err(|e| RigError::failed("write the broker's files", e))?;
        make_keys(dir.path())?;
        let mut command = Command::new(need::find_tool("mosquitto").unwrap_or_else(|| "mosquitto".into()));
        command.arg("-c").arg(dir.path().join("mosquitto.conf"));
        let process = Process::spawn("mosquitto", command, dir.path())?;
        let broker = Self { dir, port, process };
        eventually("the broker takes the centre's message", Duration::from_secs(20), || {
            let mut hello = broker.client("mosquitto_pub", CENTRE);
            hello.args(["-q", "1", "-m", "x", "-t", &format!("{SITE}/dispatch/status")]);
            run(hello).map_err(|e| format!("{e}\n{}", broker.process.tail()))
        })?;
        Ok(broker)
    }

    fn client(&self, program: &str, user: &str) -> Command {
        let file = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(program);
        command.args(["-V", "5", "-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
        command.arg("--cafile").arg(file("ca.crt"));
        command.arg("--cert").arg(file(&format!("{user}.crt"))).arg("--key").arg(file(&format!("{user}.key")));
        command
    }

    /// Publishes (QoS 1, retained): whether the broker let it.
    fn publishes(&self, user: &str, topic: &str) -> Result<bool> {
        let mut command = self.client("mosquitto_pub", user);
        command.args(["-q", "1", "-r", "-m", "x", "-t", topic]);
        let output = command.output().map_err(|e| RigError::failed("run mosquitto_pub", e))?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        // MQTT 5 reason code 135, in mosquitto's words.
        if words.contains("Not authorized") || words.contains("not authorised") {
            return Ok(false);
        }
        if output.status.success() { Ok(true) } else { Err(RigError::failed("mosquitto_pub", words)) }
    }
}

fn make_keys(dir: &Path) -> Result<()> {
    let openssl = |words: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(words);
        run(command).map(|_| ())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    for ca in ["ca", "foreign-ca"] {
        let (secret, cert, subject) = (format!("{ca}.key"), format!("{ca}.crt"), format!("/CN={ca}"));
        openssl(
            &[&["req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &secret, "-out", &cert], &key[..]].concat(),
        )?;
    }
    for (ca, name) in [("ca", "server"), ("ca", GATEWAY), ("ca", OTHER), ("ca", CENTRE), ("foreign-ca", "stranger")] {
        // The server is known by its address; a stranger claims to be the centre.
        let common_name = match name {
            "server" => "127.0.0.1",
            "stranger" => CENTRE,
            name => name,
        };
        let (secret, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let (ca_cert, ca_key, subject) = (format!("{ca}.crt"), format!("{ca}.key"), format!("/CN={common_name}"));
        openssl(&[&["req", "-new", "-subj", &subject, "-keyout", &secret, "-out", &request], &key[..]].concat())?;
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            &ca_cert,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-out",
            &cert,
        ])?;
    }
    Ok(())
}

fn writing() -> Result<()> {
    let broker = Shipped::start()?;
    let own = [
        "status",
        "event",
        "alarm/01J",
        "device/door-1",
        "evidence/01J/1",
        "evidence/01J/1/2/3",
        "statement",
        "reply/c-1",
    ];
    for topic in own {
        let (mine, others) = (format!("{SITE}/gw-01/{topic}"), format!("{SITE}/gw-02/{topic}"));
        assert!(broker.publishes(GATEWAY, &mine)?, "the gateway may not write {mine}");
        assert!(!broker.publishes(GATEWAY, &others)?, "the gateway may write {others}");
        assert!(!broker.publishes(CENTRE, &mine)?, "the centre may write {mine}");
    }
    for topic in [format!("{SITE}/gw-01/cmd/receipt/c-1"), format!("{SITE}/dispatch/status")] {
        assert!(broker.publishes(CENTRE, &topic)?, "the centre may not write {topic}");
        assert!(!broker.publishes(GATEWAY, &topic)?, "a gateway may write {topic}");
    }
    Ok(())
}

fn reading() -> Result<()> {
    let broker = Shipped::start()?;
    let (mine, others) = (format!("{SITE}/gw-01/cmd/ack/c-1"), format!("{SITE}/gw-02/cmd/ack/c-2"));
    let alive = format!("{SITE}/dispatch/status");
    let event = format!("{SITE}/gw-02/event");
    for topic in [&mine, &others, &alive] {
        assert!(broker.publishes(CENTRE, topic)?);
    }
    assert!(broker.publishes(OTHER, &event)?);
    // All four are retained, so a subscription to everything shows at once all that one may see.
    let sees = |user: &str| -> Result<Vec<String>> {
        let mut command = broker.client("mosquitto_sub", user);
        command.args(["-t", "#", "-F", "%t", "-W", "2"]);
        let output = command.output().map_err(|e| RigError::failed("run mosquitto_sub", e))?;
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    };
    assert_eq!(sees(GATEWAY)?, [alive.clone(), mine.clone()]);
    assert_eq!(sees(CENTRE)?, [alive, mine, others, event]);
    Ok(())
}

fn strangers() -> Result<()> {
    let broker = Shipped::start()?;
    let topic = format!("{SITE}/dispatch/status");
    assert!(broker.publishes(CENTRE, &topic)?);
    broker.publishes("stranger", &topic).expect_err("a certificate of a foreign CA was taken");
    let mut bare = Command::new("mosquitto_pub");
    bare.args(["-h", "127.0.0.1", "-p", &broker.port.number().to_string(), "-m", "x", "-t", &topic, "--cafile"]);
    bare.arg(broker.dir.path().join("ca.crt"));
    run(bare).expect_err("a client without a certificate was let in");
    Ok(())
}
