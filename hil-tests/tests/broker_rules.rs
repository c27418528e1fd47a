//! The access rules we ship for clustered brokers do what the contract says. Method: a real NATS server and a real RabbitMQ, each with exactly the
//! shipped file, mutual TLS with throw-away keys, and mosquitto's clients: everybody tries to write everything, and what the centre sees is
//! what was allowed. (mosquitto itself is tried in `broker_config`.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use hil_tests::ca::{Authority, Validity};
use hil_tests::clip::repository;
use hil_tests::ports::Port;
use hil_tests::process::{Process, eventually};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};

const SITE: &str = "gengfu/v1/spring-street";
const GATEWAY: &str = "spring-street.gw-01";
const CENTRE: &str = "dispatch";
/// RabbitMQ is Erlang, and starts like it on a loaded machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
const RABBIT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

fn nats_server() -> PathBuf {
    repository().join("target/gengfu/nats/nats-server")
}

fn main() -> ExitCode {
    let clients = || need::all([need::tool("mosquitto_pub"), need::tool("mosquitto_sub")]);
    let nats = need::all([clients(), need::file(&nats_server())]);
    let rabbit = need::all([clients(), need::file(Path::new(RABBIT)), need::tool("epmd")]);
    skip::main(vec![
        skip::test("shipped_nats_permissions_let_each_write_and_read_its_own_and_nothing_else", nats, || {
            everybody_tries_everything(nats_broker)
        }),
        skip::test("shipped_rabbitmq_permissions_let_each_write_and_read_its_own_and_nothing_else", rabbit, || {
            everybody_tries_everything(rabbit_broker)
        }),
    ])
}

/// A broker with its port; what else must live as long as it.
struct Running {
    dir: tempfile::TempDir,
    port: Port,
    processes: Vec<Process>,
    _ports: Vec<Port>,
}

/// A broker's processes, and further ports that are theirs.
type Parts = (Vec<Process>, Vec<Port>);

fn failed(what: &str) -> impl Fn(std::io::Error) -> RigError {
    let what = what.to_owned();
    move |error| RigError::failed(what.clone(), error)
}

fn shipped(name: &str) -> Result<String> {
    fs::read_to_string(repository().join("config/broker").join(name)).map_err(failed(name))
}

fn make_keys(dir: &Path) -> Result<()> {
    let authority = Authority::new("ca")?;
    fs::write(dir.join("ca.crt"), authority.pem()).map_err(failed("write the authority"))?;
    authority.server(&["127.0.0.1", "localhost"], Validity::Now)?.write(dir, "server")?;
    for name in [GATEWAY, CENTRE] {
        authority.client(name, Validity::Now)?.write(dir, name)?;
    }
    Ok(())
}

fn nats_broker(dir: &Path, port: &Port) -> Result<Parts> {
    let (place, mqtt, clients) = (dir.display(), port.addr(), Port::reserve()?);
    let config = format!(
        "server_name: n1\nlisten: {}\njetstream {{ store_dir: \"{place}/js\" }}\nmqtt {{ listen: {mqtt}, tls {{ cert_file: \
         \"{place}/server.crt\", key_file: \"{place}/server.key\", ca_file: \"{place}/ca.crt\", verify_and_map: true }} }}\n\
         include nats-permissions.conf\n",
        clients.addr()
    );
    fs::write(dir.join("nats.conf"), config).map_err(failed("write nats.conf"))?;
    fs::write(dir.join("nats-permissions.conf"), shipped("nats-permissions.conf")?)
        .map_err(failed("write the rules"))?;
    let mut command = Command::new(nats_server());
    command.arg("-c").arg(dir.join("nats.conf"));
    Ok((vec![Process::spawn("nats", command, dir)?], vec![clients]))
}

fn rabbit_broker(dir: &Path, port: &Port) -> Result<Parts> {
    let (place, mqtt) = (dir.display(), port.addr());
    let (mapper, amqp, distribution) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
    let config = format!(
        "listeners.tcp.1 = {}\nmqtt.listeners.tcp = none\nmqtt.listeners.ssl.1 = {mqtt}\nmqtt.ssl_cert_login = true\n\
         mqtt.allow_anonymous = false\nssl_cert_login_from = common_name\nssl_options.cacertfile = {place}/ca.crt\n\
         ssl_options.certfile = {place}/server.crt\nssl_options.keyfile = {place}/server.key\nssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\nload_definitions = {place}/rabbitmq-definitions.json\nlog.console = true\n\
         log.file = false\n",
        amqp.addr()
    );
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).map_err(failed(name));
    write("rabbit.conf", &config)?;
    write("enabled_plugins", "[rabbitmq_mqtt,rabbitmq_auth_mechanism_ssl].\n")?;
    write("rabbitmq-definitions.json", &shipped("rabbitmq-definitions.json")?)?;
    let mut command = Command::new("epmd");
    command.args(["-address", "127.0.0.1", "-port", &mapper.number().to_string()]);
    let mapping = Process::spawn("epmd", command, dir)?;
    let mut command = Command::new(RABBIT);
    command
        .env("HOME", dir)
        .env("LANG", "C.UTF-8")
        .env("ERL_EPMD_PORT", mapper.number().to_string())
        .env("RABBITMQ_NODENAME", "rules@localhost")
        .env("RABBITMQ_DIST_PORT", distribution.number().to_string())
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbit.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", dir.join("rabbit"))
        .env("RABBITMQ_LOG_BASE", dir.join("rabbit"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", dir.join("rabbit.pid"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("no-such-file"))
        // As under systemd, the script becomes the Erlang machine: what is killed is the node, not a shell around it.
        .env("NOTIFY_SOCKET", dir.join("nobody"));
    // The node ends before the mapper of its ports.
    Ok((vec![Process::spawn("rabbit", command, dir)?, mapping], vec![mapper, amqp, distribution]))
}

impl Running {
    fn start(broker: impl Fn(&Path, &Port) -> Result<Parts>) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(failed("make a temporary folder"))?;
        make_keys(dir.path())?;
        let port = Port::reserve()?;
        let (processes, ports) = broker(dir.path(), &port)?;
        let running = Self { dir, port, processes, _ports: ports };
        eventually("the broker takes the centre's message", READY_WITHIN, || {
            match running.publish(CENTRE, &format!("{SITE}/dispatch/status"), "hello") {
                true => Ok(()),
                false => Err(running.processes.iter().map(Process::tail).collect::<String>()),
            }
        })?;
        Ok(running)
    }

    fn client(&self, program: &str, user: &str) -> Command {
        let file = |name: &str| self.dir.path().join(name);
        // By lines: into a pipe it would keep "Subscribed" to itself.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program]);
        // Both speak 3.1.1.
        command.args(["-V", "311", "-q", "1", "-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
        command.arg("--cafile").arg(file("ca.crt"));
        command.arg("--cert").arg(file(&format!("{user}.crt"))).arg("--key").arg(file(&format!("{user}.key")));
        command
    }

    /// Tries; whether the broker took it or dropped it is not to be seen here on 3.1.1.
    fn publish(&self, user: &str, topic: &str, words: &str) -> bool {
        // In a session that may exist: RabbitMQ names its queue by the client.
        let status = self.client("mosquitto_pub", user).args(["-t", topic, "-m", words]).output();
        status.is_ok_and(|output| output.status.success())
    }

    /// A subscription; it ends by itself, so that a refused one does not try for ever.
    fn listen(&self, name: &str, user: &str, client: &str, filters: &[String]) -> Result<Process> {
        let mut command = self.client("mosquitto_sub", user);
        command.args(["-i", client, "-d", "-F", "%t\t%p"]);
        for filter in filters {
            command.args(["-t", filter]);
        }
        Process::spawn(name, command, self.dir.path())
    }
}

fn seen(process: &Process, payload: &str) -> Vec<String> {
    let output = process.output();
    let told = output.lines().filter_map(|line| line.split_once('\t')).filter(|(_, body)| *body == payload);
    let mut topics: Vec<String> = told.map(|(topic, _)| topic.to_owned()).collect();
    topics.sort();
    topics
}

fn everybody_tries_everything(broker: impl Fn(&Path, &Port) -> Result<Parts>) -> Result<()> {
    let broker = Running::start(broker)?;
    let of = |gateway: &str, rest: &str| format!("{SITE}/{gateway}/{rest}");
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
    let presence = format!("{SITE}/dispatch/status");
    let mut centre = broker.listen("centre", CENTRE, "centre", &["gengfu/v1/#".to_owned()])?;
    centre.wait_for_line("Subscribed", SOON)?;
    spying(&broker, &centre, &of("gw-02", "cmd/+/+"), &of("gw-02", "cmd/ack/secret"))?;
    let below = ["cmd/+/+", "alarm/+", "device/+", "event", "statement"];
    let reads: Vec<String> = below.map(|rest| of("gw-01", rest)).into_iter().chain([presence.clone()]).collect();
    let mut gateway = broker.listen("gateway", GATEWAY, "gengfu-spring-street-gw-01", &reads)?;
    gateway.wait_for_line("Subscribed", SOON)?;
    let (mut allowed, mut commands) = (Vec::new(), Vec::new());
    for rest in own {
        allowed.push(of("gw-01", rest));
        assert!(broker.publish(GATEWAY, &of("gw-01", rest), "allowed"), "{rest}");
        broker.publish(GATEWAY, &of("gw-02", rest), "forbidden");
        broker.publish(CENTRE, &of("gw-01", rest), "forbidden");
    }
    for topic in [of("gw-01", "cmd/ack/c-1"), of("gw-02", "cmd/ack/c-2"), presence.clone()] {
        broker.publish(GATEWAY, &topic, "forbidden");
        assert!(broker.publish(CENTRE, &topic, "allowed"), "{topic}");
        commands.push(topic);
    }
    allowed.extend(commands.iter().cloned());
    allowed.sort();
    eventually("the centre sees all that was allowed", SOON, || {
        let told = seen(&centre, "allowed");
        if told == allowed { Ok(()) } else { Err(format!("{told:#?}\n{}", centre.tail())) }
    })?;
    // Its commands, and of its own what it must see again.
    let again =
        own.into_iter().filter(|rest| ["alarm/", "device/", "event", "statement"].iter().any(|s| rest.starts_with(s)));
    let mut meant: Vec<String> =
        again.map(|rest| of("gw-01", rest)).chain([of("gw-01", "cmd/ack/c-1"), presence]).collect();
    meant.sort();
    eventually("the gateway sees what is meant for it", SOON, || {
        let told = seen(&gateway, "allowed");
        if told == meant { Ok(()) } else { Err(format!("{told:#?}\n{}", gateway.tail())) }
    })?;
    for (who, process) in [("the centre", &centre), ("the gateway", &gateway)] {
        assert_eq!(seen(process, "forbidden"), Vec::<String>::new(), "{who}");
    }
    Ok(())
}

/// A gateway asks for another's commands, under its own client id: it sees none.
fn spying(broker: &Running, centre: &Process, filter: &str, topic: &str) -> Result<()> {
    let mut spy = broker.listen("spy", GATEWAY, "gengfu-spring-street-gw-01", &[filter.to_owned()])?;
    // A broker refuses the subscription, or ends the connection: then the client connects again and again.
    eventually("the spy is answered", SOON, || {
        let output = spy.output();
        let dropped = output.matches("sending CONNECT").count() > 1;
        let answered = dropped || ["Subscribed", "denied"].iter().any(|word| output.contains(word));
        if answered { Ok(()) } else { Err(spy.tail()) }
    })?;
    assert!(broker.publish(CENTRE, topic, "secret"));
    eventually("the centre sees the command", SOON, || {
        if seen(centre, "secret").is_empty() { Err(centre.tail()) } else { Ok(()) }
    })?;
    assert_eq!(seen(&spy, "secret"), Vec::<String>::new(), "another gateway's commands are read");
    spy.kill();
    Ok(())
}
