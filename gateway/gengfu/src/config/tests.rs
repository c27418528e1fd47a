//! Goal: a wrong file is answered with every fault at once, each with its line, key path and remedy.

use super::*;

const GOOD: &str = r#"
[gateway]
site = "jinding"
name = "gw-1"
data_dir = "data"
[uplink]
broker = "127.0.0.1:1883"
[[node]]
name = "node-a"
port = "/dev/ttyUSB0"
[[node.device]]
channel = 1
name = "door-301"
class = "door"
left_open_after = "15m"
[[camera]]
name = "cam-1"
url = "rtsp://user:secret@192.0.2.1:554/stream"
[[camera.zone]]
name = "kerb"
kind = "illegal_parking"
limit = "180s"
polygon = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]
"#;

fn faults(text: &str) -> Vec<Fault> {
    Config::parse(text, Path::new("/base")).unwrap_err()
}

#[test]
fn a_small_file_is_enough_and_paths_start_at_its_folder() {
    let config = Config::parse(GOOD, Path::new("/base")).unwrap();
    assert_eq!(config.gateway.data_dir, Path::new("/base/data"));
    let detour = Config::parse(&GOOD.replace("\"data\"", "\"./x/../../other/data\""), Path::new("/base")).unwrap();
    assert_eq!(detour.gateway.data_dir, Path::new("/other/data"));
    assert_eq!(config.uplink.protocol, Protocol::Mqtt5);
    assert_eq!(config.nodes[0].channels[&1].left_open_after, Some(Duration::from_secs(900)));
    assert_eq!(config.cameras[0].zones[0].limit, Duration::from_secs(180));
    assert_eq!(config.uplink.client_id, "gengfu-jinding-gw-1");
}

#[test]
fn all_faults_are_listed_with_line_key_and_remedy() {
    let text = GOOD
        .replace("site = \"jinding\"", "site = \"Jin Ding\"")
        .replace("left_open_after = \"15m\"", "left_open_after = \"3 parsecs\"")
        .replace("limit = \"180s\"", "limt = \"180s\"")
        .replace("[0.9, 0.9]]", "[0.9, 1.9]]")
        .replace("broker = \"127.0.0.1:1883\"", "broker = \"127.0.0.1\"");
    let found = faults(&text);
    let keys: Vec<&str> = found.iter().map(|f| f.key.as_str()).collect();
    for key in [
        "gateway.site",
        "uplink.broker",
        "node[0].device[0].left_open_after",
        "camera[0].zone[0].limt",
        "camera[0].zone[0].limit",
        "camera[0].zone[0].polygon[2]",
    ] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert!(found.iter().all(|f| f.line > 0 && !f.remedy.is_empty()));
    assert_eq!(found.iter().find(|f| f.key == "gateway.site").unwrap().line, 3);
    let typo = found.iter().find(|f| f.key.ends_with("limt")).unwrap();
    assert!(typo.remedy.contains("did you mean `limit`"), "{typo}");
}

#[test]
fn what_is_missing_is_said_with_an_example() {
    let found = faults("");
    assert!(found.iter().any(|f| f.key == "gateway" && f.remedy.contains("data_dir")), "{found:?}");
    assert!(found.iter().any(|f| f.key == "uplink"), "{found:?}");
}

#[test]
fn contradictions_are_faults() {
    let found = faults(&GOOD.replace("class = \"door\"", "class = \"smoke\""));
    assert!(found[0].problem.contains("only a door"), "{found:?}");
    let found = faults(&GOOD.replace("\"cam-1\"", "\"door-301\""));
    assert!(found[0].problem.contains("two devices"), "{found:?}");
    let found = faults(&GOOD.replace("name = \"gw-1\"", "name = \"dispatch\""));
    assert!(found[0].problem.contains("centre"), "{found:?}");
}

#[test]
fn syntax_errors_name_their_line() {
    let found = faults("[gateway]\nsite = \n");
    assert_eq!(found[0].line, 2, "{found:?}");
}

#[test]
fn credentials_never_show() {
    let config = Config::parse(GOOD, Path::new("/base")).unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    assert_eq!(config.cameras[0].url.to_string(), "rtsp://***@192.0.2.1:554/stream");
}

#[test]
fn no_text_panics() {
    for cut in 0..GOOD.len() {
        let _ = Config::parse(&GOOD[..cut], Path::new("/base"));
    }
    for junk in [
        "[[gateway]]",
        "gateway = 1",
        "node = 3\n[gateway]\n[uplink]",
        "camera = [1, 2]",
        "[gateway.location]\nlon = 1e999",
    ] {
        assert!(!faults(junk).is_empty(), "{junk}");
    }
}
