//! Goal: a wrong entry is answered with every fault at once, and what is right is joined with its profile, or told why not.

use gengfu_alarm::policy::SupervisionClass;
use gengfu_alarm::rules::DeviceClass as RuleClass;

use super::*;
use crate::sensors::plan::resolve;

const GOOD: &str = r#"
profiles = "shelf"
[[modbus]]
name = "rs485-1"
port = "/dev/ttyUSB0"
baud = 9600
parity = "even"
[[modbus.unit]]
name = "inputs-1"
address = 1
profile = "acme-8di"
[[modbus.unit.device]]
channel = 3
name = "door-301"
class = "door"
left_open_after = "15m"
supervision = "300s"
inverted = true
[[device_broker]]
name = "zigbee"
broker = "127.0.0.1:1883"
username = "gengfu"
password_file = "zigbee.password"
[[device_broker.bridge]]
name = "z2m"
topic = "zigbee2mqtt/bridge/state"
[[device_broker.device]]
name = "door-302"
profile = "acme-door"
address = "0x00158d0001234567"
class = "door"
via = "z2m"
"#;

const INPUTS: &str = r#"
name = "acme-8di"
maker = "Acme"
model = "8DI"
source = "https://example.org"
link = "modbus"
class = "any"
[[read]]
name = "inputs"
function = "discrete_inputs"
address = 0
count = 8
[[point]]
read = "inputs"
address = 0
repeat = 8
contact = true
"#;

const DOOR: &str = r#"
name = "acme-door"
maker = "Acme"
model = "Door"
source = "https://example.org"
link = "mqtt"
class = "door"
supervision = "S3"
[[topic]]
pattern = "acme/{device}"
payload = "json"
[[topic.value]]
at = "/contact"
states = { true = "door.closed", false = "door.open" }
"#;

fn shelf() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shelf")).unwrap();
    std::fs::write(dir.path().join("shelf/acme-8di.toml"), INPUTS).unwrap();
    std::fs::write(dir.path().join("shelf/acme-door.toml"), DOOR).unwrap();
    dir
}

#[test]
fn a_good_entry_becomes_a_plan_with_its_rules() {
    let dir = shelf();
    let config = parse(GOOD, dir.path()).unwrap();
    assert_eq!((config.lines[0].timeout, config.lines[0].failures_max), (300 * MS, 3));
    assert_eq!(config.brokers[0].client_id, "gengfu-devices-zigbee");
    assert_eq!(config.names().count(), 6);
    let plan = resolve(&config).unwrap();
    assert!(plan.lines[0].units[0].devices[&3].1, "inverted");
    let rules = plan.rules(&Location::default());
    let rule = |name: &str| &rules.iter().find(|(of, _)| of.as_str() == name).unwrap().1;
    let parent = |name: &str| rule(name).parent.as_ref().map(|parent| parent.to_string());
    assert_eq!(parent("door-301").as_deref(), Some("inputs-1"));
    assert_eq!(parent("inputs-1").as_deref(), Some("rs485-1"));
    assert_eq!((parent("door-302").as_deref(), parent("z2m").as_deref()), (Some("z2m"), Some("zigbee")));
    let classes = ["rs485-1", "inputs-1", "zigbee", "z2m"].map(|name| rule(name).class);
    assert_eq!(classes, [RuleClass::Bus, RuleClass::Node, RuleClass::Bus, RuleClass::Bus]);
    assert_eq!(rule("door-302").supervision, Some(SupervisionClass::S3), "as its profile says");
    assert_eq!(rule("door-301").supervision, Some(SupervisionClass::S1), "as the configuration says");
}

#[test]
fn all_faults_are_listed_with_line_key_and_remedy() {
    let text = GOOD
        .replace("baud = 9600", "baud = 9601\nhost = \"192.0.2.1:502\"")
        .replace("address = 1\n", "address = 248\n")
        .replace("via = \"z2m\"", "via = \"z3m\"")
        .replace("zigbee2mqtt/bridge/state", "zigbee2mqtt/#")
        .replace("username = \"gengfu\"\n", "")
        .replacen("class = \"door\"\n", "class = \"smoke\"\n", 1);
    let found = parse(&text, Path::new("/base")).unwrap_err();
    let keys: Vec<&str> = found.iter().map(|fault| fault.key.as_str()).collect();
    for key in [
        "modbus[0].baud",
        "modbus[0].port",
        "modbus[0].unit[0].address",
        "modbus[0].unit[0].device[0].left_open_after",
        "device_broker[0].bridge[0].topic",
        "device_broker[0].device[0].via",
        "device_broker[0].password_file",
    ] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert!(found.iter().all(|fault| fault.line > 0 && !fault.remedy.is_empty()));
}

#[test]
fn names_addresses_and_channels_are_used_once() {
    let twice = GOOD.replace("\"door-302\"", "\"door-301\"");
    assert!(parse(&twice, Path::new("/")).unwrap_err()[0].problem.contains("two devices"), "{twice}");
    let unit = "[[modbus.unit]]\nname = \"inputs-2\"\naddress = 1\nprofile = \"x\"\n[[modbus.unit.device]]\nname = \"d\"\nclass = \"door\"\n";
    let device = "[[modbus.unit.device]]\nname = \"e\"\nclass = \"door\"\n";
    let text = GOOD.replace("[[device_broker]]", &format!("{unit}{device}[[device_broker]]"));
    let found = parse(&text, Path::new("/")).unwrap_err();
    let said = |words: &str| found.iter().any(|fault| fault.problem.contains(words));
    assert!(said("two units have address 1") && said("channel 1 has two devices"), "{found:#?}");
}

#[test]
fn what_does_not_fit_its_profile_is_told_with_its_key() {
    let dir = shelf();
    let lacks = |text: &str| resolve(&parse(text, dir.path()).unwrap()).unwrap_err();
    let told = |text: &str, key: &str, words: &str| {
        let found = lacks(text);
        let fits = found.iter().any(|lack| lack.key == key && lack.problem.contains(words) && !lack.remedy.is_empty());
        assert!(fits, "{key} {words}: {found:#?}");
    };
    let device = "modbus[0].unit[0].device[0]";
    told(&GOOD.replace("channel = 3", "channel = 9"), &format!("{device}.channel"), "no channel 9");
    told(&GOOD.replace("\"acme-8di\"", "\"acme-door\""), "modbus[0].unit[0].profile", "for MQTT");
    told(&GOOD.replace("\"acme-door\"", "\"acme-8di\""), "device_broker[0].device[0].profile", "for Modbus");
    told(&GOOD.replace("\"acme-door\"", "\"nobody\""), "device_broker[0].device[0].profile", "nobody.toml");
    let door = "device_broker[0].device[0]";
    told(&GOOD.replace("class = \"door\"\nvia", "class = \"sos\"\nvia"), &format!("{door}.class"), "of class \"door\"");
    told(&GOOD.replace("via =", "part = \"x\"\nvia ="), &format!("{door}.part"), "no part");
    std::fs::write(dir.path().join("shelf/acme-door.toml"), DOOR.replace("maker", "make")).unwrap();
    told(GOOD, "device_broker[0].device[0].profile", "acme-door.toml:3: make: unknown key");
}

#[test]
fn no_text_panics() {
    for cut in 0..GOOD.len() {
        let _ = parse(&GOOD[..cut], Path::new("/base"));
    }
}
