//! Goal: a wrong profile is answered with every fault at once, each with line, key and remedy; what contradicts itself is never loaded.

use super::*;

const MODBUS: &str = r#"
name = "acme-8di"
maker = "Acme"
model = "8DI"
source = "https://example.org/8di.pdf"
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

const MQTT: &str = r#"
name = "acme-door"
maker = "Acme"
model = "Door"
source = "https://example.org/door"
link = "mqtt"
class = "door"
supervision = "S2"
battery_mv_at = [2700, 3050]
[[topic]]
pattern = "acme/{device}"
payload = "json"
[[topic.value]]
at = "/contact"
states = { "true" = "door.closed", "false" = ["door.open"] }
[[topic.value]]
at = "/battery"
number = "battery_percent"
"#;

fn faults(text: &str) -> Vec<Fault> {
    parse(text).unwrap_err()
}

fn problem(text: &str, words: &str) {
    let found = faults(text);
    assert!(found.iter().any(|f| f.problem.contains(words) && !f.remedy.is_empty()), "{words}: {found:#?}");
}

#[test]
fn a_repeated_point_is_one_a_channel() {
    let profile = parse(MODBUS).unwrap();
    assert_eq!(profile.channels(), (1..=8).collect());
    let Map::Modbus(map) = profile.map else { panic!() };
    assert_eq!((map.points[7].channel, map.points[7].at), (8, 7));
    assert_eq!(map.reads[0].every, Duration::from_millis(500));
}

#[test]
fn all_faults_are_listed_with_line_key_and_remedy() {
    let text = MODBUS
        .replace("maker = \"Acme\"\n", "")
        .replace("count = 8", "count = 2001")
        .replace("contact = true", "states = { \"1\" = \"door.ajar\" }\nadress = 3");
    let found = faults(&text);
    let keys: Vec<&str> = found.iter().map(|f| f.key.as_str()).collect();
    for key in ["maker", "read[0].count", "point[0].states", "point[0].adress"] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert!(found.iter().all(|f| f.line > 0 && !f.remedy.is_empty()));
    assert!(found.iter().any(|f| f.remedy.contains("did you mean `address`")), "{found:#?}");
    assert!(found.iter().any(|f| f.remedy.contains("door.open")), "{found:#?}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    problem(&MODBUS.replace("repeat = 8", "repeat = 9"), "is not in what");
    problem(&MODBUS.replace("read = \"inputs\"", "read = \"inputz\""), "no such read");
    problem(&MODBUS.replace("contact = true", "contact = true\nbit = 3"), "one bit");
    problem(&MODBUS.replace("contact = true", "contact = true\nnumber = \"fire\""), "said twice");
    problem(&MODBUS.replace("contact = true", "states = { \"1\" = \"door.open\" }"), "words of one class");
    let smoke = MODBUS.replace("class = \"any\"", "class = \"sos\"");
    problem(&smoke.replace("contact = true", "states = { \"1\" = \"sos.pressed\" }"), "moment");
    problem(&MQTT.replace("door.closed", "smoke.clear"), "cannot say");
    problem(&MQTT.replace("battery_mv_at = [2700, 3050]\n", ""), "without a voltage");
    problem(&MQTT.replace("[2700, 3050]", "[3050, 2700]"), "lower first");
    problem(&MQTT.replace("acme/{device}", "acme/#"), "not accepted");
    problem(&MQTT.replace("\"/battery\"\nnumber = \"battery_percent\"", "\"/c2\"\ncontact = true"), "two values");
    problem(&MQTT.replace("number = \"battery_percent\"", "number = \"fire\"\nalarm_from = 1"), "limits");
}

#[test]
fn a_profile_says_whether_a_part_is_needed() {
    assert!(!parse(MQTT).unwrap().needs_part());
    assert!(parse(&MQTT.replace("\"/contact\"", "\"/{part}\"")).unwrap().needs_part());
}

#[test]
fn no_text_panics() {
    for text in [MODBUS, MQTT] {
        for cut in 0..text.len() {
            let _ = parse(&text[..cut]);
        }
    }
    for junk in ["read = 1", "[[read]]\n[[point]]", "link = \"mqtt\"\ntopic = [1]", "battery_mv_at = [1e999, -1]"] {
        assert!(!faults(junk).is_empty(), "{junk}");
    }
}

#[test]
fn a_file_of_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.toml");
    std::fs::write(&path, MQTT).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("rename the file to acme-door.toml"));
    let path = dir.path().join("acme-door.toml");
    std::fs::write(&path, MQTT).unwrap();
    assert_eq!(load(&path).unwrap().class, Some(DeviceClass::Door));
    assert!(matches!(load(Path::new("/nowhere/x.toml")), Err(ConfigError::Unreadable { .. })));
}
