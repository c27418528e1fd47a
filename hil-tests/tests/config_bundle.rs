//! The configuration changes from afar. Goal: a good one is kept, one that loses the way to the centre is rolled back by itself with the reason, nothing that
//! happens meanwhile is lost, a fire does not wait for it, and a kill at any moment leaves one of both. Method: the real gateway, node, mosquitto and desk;
//! bundles are made by `gengfu config`, commands come as any MQTT client sends them; the rig starts the gateway again as a service manager does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use gengfu_contract::event::EventType;
use gengfu_contract::words::AlarmKind;
use gengfu_node_linux::Command::{Contact, Smoke};
use hil_tests::commander::{Centre, given};
use hil_tests::gateway::binary;
use hil_tests::node::rounds;
use hil_tests::process::{Process, eventually, run};
use hil_tests::site::{GATEWAY, Plan, SETTLED_WITHIN, SITE, Site};
use hil_tests::skip::{self, need};
use hil_tests::{Result, RigError};
use serde_json::{Value, json};

/// Nobody listens there.
const NO_BROKER: &str = "127.0.0.1:1";
/// Long enough for a broker that answers, on a busy machine too.
const LONG: &str = "\n[config]\ntrusted = [\"centre.pub\"]\ntrial = \"2m\"\n";
const SHORT: &str = "\n[config]\ntrusted = [\"centre.pub\"]\ntrial = \"8s\"\n";

fn main() -> ExitCode {
    let mosquitto = || need::tool("mosquitto");
    skip::main(vec![
        skip::test("config_bundle_a_good_one_is_kept_once_and_can_be_taken_back_at_the_box", mosquitto(), kept),
        skip::test(
            "config_bundle_one_without_a_way_to_the_centre_is_rolled_back_and_nothing_is_lost",
            mosquitto(),
            lost_way,
        ),
        skip::test("config_bundle_a_fire_does_not_wait_for_a_trial", mosquitto(), fire),
        skip::test(
            "config_bundle_tampered_foreign_older_and_faulty_ones_are_refused_with_reasons",
            mosquitto(),
            refused,
        ),
        skip::test("config_bundle_a_kill_at_any_moment_of_a_change_is_carried_on", mosquitto(), killed_anywhere),
        skip::test("config_bundle_a_trial_that_is_killed_again_and_again_is_rolled_back", mosquitto(), crash_loop),
    ])
}

/// The centre's key, and the bundles made with it.
struct Bundles {
    dir: PathBuf,
}

impl Bundles {
    fn new(site: &Site) -> Result<Self> {
        let bundles = Self { dir: site.dir.path().to_owned() };
        gengfu(&["config", "keygen", "--key", &bundles.path("centre.key"), "--public", &bundles.path("centre.pub")])?;
        Ok(bundles)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Packs and signs a configuration; gives the bundle's file.
    fn make(&self, counter: u64, config: &str, key: &str) -> Result<String> {
        let (toml, bundle) = (self.path(&format!("{counter}.toml")), self.path(&format!("{counter}.bundle")));
        fs::write(&toml, config).map_err(|e| RigError::failed("write a configuration", e))?;
        gengfu(&["config", "pack", &toml, "--counter", &counter.to_string(), "--out", &bundle])?;
        gengfu(&["config", "sign", &bundle, "--key", &self.path(key)])?;
        Ok(bundle)
    }

    /// As [`Bundles::make`], signed by the centre, as the body of a command.
    fn body(&self, site: &Site, counter: u64, config: &str) -> Result<Value> {
        let bundle = self.make(counter, config, "centre.key")?;
        gengfu(&["config", "verify", &bundle, "--public", &self.path("centre.pub")])?;
        body_of(site, Path::new(&bundle))
    }
}

fn body_of(site: &Site, bundle: &Path) -> Result<Value> {
    let body: Value = serde_json::from_str(&gengfu(&["config", "command", &bundle.display().to_string()])?)
        .map_err(|e| RigError::failed("read the command's body", e))?;
    given(site, json!({ "bundle": body["bundle"] }))
}

fn gengfu(words: &[&str]) -> Result<String> {
    let mut command = Command::new(binary()?);
    command.args(words);
    run(command)
}

fn plan(more: &'static str) -> Plan {
    Plan { nodes: 1, more, ..Plan::default() }
}

fn configuration(site: &Site) -> Result<String> {
    fs::read_to_string(site.gateway.config()).map_err(|e| RigError::failed("read the configuration", e))
}

/// Another good configuration: a door may stand open for so many seconds.
fn with_limit(config: &str, seconds: u64) -> String {
    config.replace("left_open_after = \"2s\"", &format!("left_open_after = \"{seconds}s\""))
}

/// One that leads nowhere.
fn without_broker(site: &Site, config: &str) -> String {
    config.replace(&format!("127.0.0.1:{}", site.broker.port()), NO_BROKER)
}

/// Runs a command of a person to its end, while the gateway is tended. Its exit code.
fn tended(site: &mut Site, name: &str, command: Command) -> Result<Option<i32>> {
    let mut person = Process::spawn(name, command, site.dir.path())?;
    let code = eventually(&format!("{name} ends"), SETTLED_WITHIN, || {
        site.gateway.tend().map_err(|e| e.to_string())?;
        person.wait(Duration::ZERO).map(|status| status.code()).map_err(|e| e.to_string())
    })?;
    println!("{}", person.tail());
    Ok(code)
}

/// The first last word beyond `before` answers, while the gateway is tended.
fn last_word(site: &mut Site, centre: &Centre, id: &str, before: usize) -> Result<Value> {
    eventually(&format!("the last word on {id}"), SETTLED_WITHIN, || {
        site.gateway.tend().map_err(|e| e.to_string())?;
        let replies = centre.replies(id);
        let word = replies.iter().skip(before).find(|reply| reply["outcome"] != "accepted");
        word.cloned().ok_or_else(|| format!("so far {replies:?}"))
    })
}

fn reason(reply: &Value) -> &str {
    reply["reason"]["en"].as_str().unwrap_or_default()
}

/// Outcomes of a command in the journal that reached the desk.
fn logged(site: &Site, id: &str) -> Result<Vec<String>> {
    let journal = site.desk.journal()?;
    let of = |line: &gengfu::desk::journal::Line| {
        let data = line.event.command().ok().flatten().filter(|data| data.cmd_id == id)?;
        serde_json::to_value(data.outcome).ok()?.as_str().map(str::to_owned)
    };
    Ok(journal.iter().filter_map(of).collect())
}

fn starts(site: &Site) -> Result<usize> {
    let journal = site.desk.journal()?;
    Ok(journal.iter().filter(|line| line.event.event_type == EventType::GatewayStarted).count())
}

fn door(site: &Site, open: bool) -> Result<()> {
    let before = site.nodes[0].accepted().len();
    site.nodes[0].act(Contact { open })?;
    eventually("the node has seen its door", SETTLED_WITHIN, || {
        if site.nodes[0].accepted().len() > before { Ok(()) } else { Err("not yet".into()) }
    })
}

fn is_in_use(status: &Value, source: &str, counter: &Value) -> bool {
    let config = &status["config"];
    config["source"] == source && config["counter"] == *counter && config["trial"].is_null()
}

fn kept() -> Result<()> {
    let mut site = Site::start(&plan(LONG))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    let body = bundles.body(&site, 1, &with_limit(&config, 3))?;
    door(&site, true)?;
    centre.send(GATEWAY, "config", "g-1", &body)?;
    assert_eq!(last_word(&mut site, &centre, "g-1", 0)?["outcome"], "done");
    assert_eq!(centre.replies("g-1")[0]["outcome"], "accepted", "{:?}", centre.replies("g-1"));
    let status = site.gateway.status()?;
    assert!(is_in_use(&status, "bundle", &json!(1)), "{}", status["config"]);
    assert_eq!(status["config"]["last"]["ending"], "kept");

    // The same again, and the same bundle under another id: nothing starts anew.
    let boot = status["gateway"]["boot"].clone();
    for id in ["g-1", "g-2"] {
        let before = centre.replies(id).len();
        centre.send(GATEWAY, "config", id, &if id == "g-1" { body.clone() } else { given(&site, body.clone())? })?;
        assert_eq!(last_word(&mut site, &centre, id, before)?["outcome"], "done", "{id}");
    }
    assert_eq!(site.gateway.status()?["gateway"]["boot"], boot);

    // At the box: back to the file, then the same bundle although it is not newer.
    let (code, _, err) = site.gateway.command_output(&["config", "rollback", "--who", "li"])?;
    assert_eq!(code, Some(0), "{err}");
    site.gateway.wait_until("the file is in use again", SETTLED_WITHIN, |status| {
        is_in_use(status, "file", &Value::Null) && status["uplink"]["state"] == "online"
    })?;
    let bundle = bundles.path("1.bundle");
    let (code, _, err) = site.gateway.command_output(&["config", "try", &bundle])?;
    assert!(code == Some(2) && err.contains("--older"), "{code:?} {err}");
    let mut command = Command::new(binary()?);
    command.args(["config", "try", "--older", "--who", "li", &bundle, "--config"]).arg(site.gateway.config());
    assert_eq!(tended(&mut site, "try", command)?, Some(0));
    let (_, shown, _) = site.gateway.command_output(&["config", "show"])?;
    assert!(shown.contains("bundle 1") && shown.contains("was kept") && shown.contains("li"), "{shown}");

    door(&site, false)?;
    site.settle()?;
    site.account()?;
    assert_eq!(logged(&site, "g-1")?, ["accepted", "done"]);
    Ok(())
}

fn lost_way() -> Result<()> {
    let mut site = Site::start(&plan(SHORT))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    let body = bundles.body(&site, 1, &without_broker(&site, &config))?;
    door(&site, true)?;
    centre.send(GATEWAY, "config", "w-1", &body)?;
    let trial = site.gateway.wait_until("the trial runs", SETTLED_WITHIN, |status| {
        status["config"]["trial"]["starts"] == 1 && status["uplink"]["broker"] == NO_BROKER
    })?;
    assert_eq!(trial["config"]["trial"]["need"], "receipt", "{}", trial["config"]);
    // What happens in the trial happens to the gateway as ever.
    door(&site, false)?;
    door(&site, true)?;
    let reply = last_word(&mut site, &centre, "w-1", 0)?;
    assert_eq!(reply["outcome"], "refused");
    assert!(reason(&reply).contains("no receipt of the centre within 8 s"), "{reply}");
    let status = site.gateway.status()?;
    assert!(is_in_use(&status, "file", &Value::Null), "{}", status["config"]);
    let (code, out, _) = site.gateway.command_output(&["config", "show"])?;
    assert!(code == Some(1) && out.contains("was rolled back"), "{code:?} {out}");
    site.settle()?;
    site.account()?;
    assert_eq!(logged(&site, "w-1")?, ["accepted", "refused"]);

    // It may not come again, a corrected one may.
    let again = given(&site, body)?;
    centre.send(GATEWAY, "config", "w-2", &again)?;
    assert!(reason(&last_word(&mut site, &centre, "w-2", 0)?).contains("not higher than 1"));
    let good = bundles.make(2, &with_limit(&config, 3), "centre.key")?;
    let broker = format!("127.0.0.1:{}", site.broker.port());
    let mut command = Command::new(binary()?);
    command.args(["desk", "act", "config", "--bundle", &good, "--site", SITE, "--broker", &broker, "--within", "90s"]);
    assert_eq!(tended(&mut site, "act", command)?, Some(0));
    site.gateway.wait_until("it is in use", SETTLED_WITHIN, |status| is_in_use(status, "bundle", &json!(2)))?;
    site.settle()?;
    site.account()?;
    Ok(())
}

fn fire() -> Result<()> {
    let mut site = Site::start(&plan(LONG))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    let body = bundles.body(&site, 1, &without_broker(&site, &config))?;
    centre.send(GATEWAY, "config", "f-1", &body)?;
    site.gateway.wait_until("the trial runs", SETTLED_WITHIN, |status| {
        let up = status["links"][0]["up"] == true;
        up && status["config"]["trial"]["starts"] == 1
    })?;
    site.nodes[0].act(Smoke(true))?;
    let reply = last_word(&mut site, &centre, "f-1", 0)?;
    assert!(reply["outcome"] == "refused" && reason(&reply).contains("life-safety alarm"), "{reply}");
    site.settle()?;
    site.account()?;
    let journal = site.desk.journal()?;
    let fire = journal.iter().find(|line| {
        let alarm = line.event.alarm().ok().flatten();
        line.event.event_type == EventType::AlarmRaised && alarm.is_some_and(|alarm| alarm.kind == AlarmKind::Smoke)
    });
    let fire = fire.ok_or_else(|| RigError::failed("find the fire at the desk", "it is not there"))?;
    let late = fire.received_at.duration_since(fire.event.time);
    println!("from smoke to the desk over the rollback: {} ms", late.as_millis());
    // The trial alone would have lasted 120 s; the rest is room for a busy machine.
    assert!(late.as_secs() < 60, "{late:?}");
    Ok(())
}

fn refused() -> Result<()> {
    let mut site = Site::start(&plan(LONG))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    gengfu(&["config", "keygen", "--key", &bundles.path("other.key"), "--public", &bundles.path("other.pub")])?;
    // A district's worth of configuration, nearly the largest that is taken.
    let large = with_limit(&config, 3) + &"# 网格 grid 440402001001001, stairwell B, flats 101 to 118\n".repeat(10_000);
    centre.send(GATEWAY, "config", "r-good", &bundles.body(&site, 10, &large)?)?;
    assert_eq!(last_word(&mut site, &centre, "r-good", 0)?["outcome"], "done");
    let boot = site.gateway.status()?["gateway"]["boot"].clone();

    let tampered = bundles.path("tampered.bundle");
    let mut bytes = fs::read(bundles.make(11, &config, "centre.key")?).map_err(|e| RigError::failed("read", e))?;
    let last = bytes.len() - 1;
    bytes[last] ^= 0x20;
    fs::write(&tampered, bytes).map_err(|e| RigError::failed("write", e))?;
    let foreign = config.replace(&format!("name = \"{GATEWAY}\""), "name = \"gw-2\"");
    let lacking = config.replace("/config/codes/gengfu.toml", "/config/codes/none.toml");
    let cases = [
        ("r-tampered", tampered, "another SHA-256"),
        ("r-unknown", bundles.make(12, &config, "other.key")?, "no trusted key"),
        ("r-foreign", bundles.make(13, &foreign, "centre.key")?, "is for hil/gw-2"),
        ("r-older", bundles.make(9, &config, "centre.key")?, "not higher than 10"),
        ("r-lacking", bundles.make(14, &lacking, "centre.key")?, "none.toml"),
    ];
    for (id, bundle, word) in cases {
        centre.send(GATEWAY, "config", id, &body_of(&site, Path::new(&bundle))?)?;
        let reply = last_word(&mut site, &centre, id, 0)?;
        assert!(reply["outcome"] == "refused" && reason(&reply).contains(word), "{id}: {reply}");
        assert!(reply["reason"]["zh"].as_str().is_some_and(|zh| !zh.is_ascii()), "{id}: {reply}");
    }
    centre.send(GATEWAY, "config", "r-text", &given(&site, json!({"bundle": "not base64!"}))?)?;
    assert!(reason(&last_word(&mut site, &centre, "r-text", 0)?).contains("base64"));
    let (code, _, err) = site.gateway.command_output(&["config", "try", &bundles.path("13.bundle")])?;
    assert!(code == Some(2) && err.contains("is for hil/gw-2"), "the box is as strict: {code:?} {err}");
    // A faulty one is not even packed.
    let faulty = bundles.make(15, &config.replace("keep_alive", "keep_a_live"), "centre.key");
    assert!(faulty.is_err());

    let status = site.gateway.status()?;
    assert!(is_in_use(&status, "bundle", &json!(10)), "{}", status["config"]);
    assert_eq!(status["gateway"]["boot"], boot, "nothing was tried");
    site.settle()?;
    site.account()?;
    Ok(())
}

fn killed_anywhere() -> Result<()> {
    let mut site = Site::start(&plan(LONG))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    for n in 1..=rounds(6) as u64 {
        let id = format!("k-{n}");
        let body = bundles.body(&site, n, &with_limit(&config, 2 + n))?;
        door(&site, n % 2 == 1)?;
        centre.send(GATEWAY, "config", &id, &body)?;
        // From before it is judged to after it is kept, a second for the answer to leave in between.
        let moment = Duration::from_millis(130 * ((n - 1) * 7 % 20));
        let _ = eventually("a moment passes", moment, || {
            site.gateway.tend().map_err(|e| e.to_string())?;
            Err::<(), String>("it does".into())
        });
        site.gateway.kill_and_restart()?;
        site.gateway
            .wait_until("the gateway is back", SETTLED_WITHIN, |status| status["uplink"]["state"] == "online")?;
        centre.send(GATEWAY, "config", &id, &body)?;
        assert_eq!(last_word(&mut site, &centre, &id, 0)?["outcome"], "done", "{id}");
        site.gateway.wait_until("it is in use", SETTLED_WITHIN, |status| is_in_use(status, "bundle", &json!(n)))?;
        let others: Vec<Value> =
            centre.replies(&id).into_iter().filter(|reply| reply["outcome"] == "refused").collect();
        assert!(others.is_empty(), "{id}: {others:?}");
    }
    site.settle()?;
    let account = site.account()?;
    println!("{} starts, {} events", starts(&site)?, account.events);
    for n in 1..=rounds(6) {
        let outcomes = logged(&site, &format!("k-{n}"))?;
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "done").count(), 1, "k-{n}: {outcomes:?}");
    }
    Ok(())
}

fn crash_loop() -> Result<()> {
    let mut site = Site::start(&plan(LONG))?;
    let (bundles, centre, config) = (Bundles::new(&site)?, Centre::join(&site)?, configuration(&site)?);
    let body = bundles.body(&site, 1, &without_broker(&site, &config))?;
    door(&site, true)?;
    centre.send(GATEWAY, "config", "c-1", &body)?;
    for start in 1..=3 {
        site.gateway.wait_until(&format!("start {start} of the trial"), SETTLED_WITHIN, |status| {
            status["config"]["trial"]["starts"] == start
        })?;
        site.gateway.kill_and_restart()?;
    }
    let reply = last_word(&mut site, &centre, "c-1", 0)?;
    assert!(reply["outcome"] == "refused" && reason(&reply).contains("3 times"), "{reply}");
    let status = site.gateway.status()?;
    assert!(is_in_use(&status, "file", &Value::Null), "{}", status["config"]);
    door(&site, false)?;
    site.settle()?;
    site.account()?;
    assert_eq!(logged(&site, "c-1")?, ["accepted", "refused"]);
    Ok(())
}
