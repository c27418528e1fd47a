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
    assert_eq!(config.cameras[0].zones[0].rule.limit, Duration::from_secs(180));
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

const BUS: &str = r#"
[[bus]]
name = "bus-a"
port = "/dev/ttyUSB1"
[[node]]
name = "node-b"
bus = "bus-a"
address = 3
[[node]]
name = "node-c"
bus = "bus-a"
address = 4
"#;

#[test]
fn nodes_share_a_bus_by_address() {
    let config = Config::parse(&format!("{GOOD}{BUS}"), Path::new("/base")).unwrap();
    assert_eq!((config.buses[0].baud, config.buses[0].turnaround), (115_200, Duration::from_millis(25)));
    let at = Attachment::Bus { bus: Slug::new("bus-a").unwrap(), address: 3 };
    assert_eq!(config.nodes[1].at, at);
}

#[test]
fn what_cannot_be_on_a_bus_is_refused() {
    let wrong = |from: &str, to: &str, part: &str| {
        let found = faults(&format!("{GOOD}{}", BUS.replacen(from, to, 1)));
        assert!(found.iter().any(|f| f.to_string().contains(part)), "{part}: {found:?}");
    };
    wrong("address = 4", "address = 3", "have address 3 on bus bus-a");
    wrong("address = 4", "address = 248", "from 1 to 247");
    wrong("address = 4\n", "", "address: is missing");
    wrong("bus = \"bus-a\"", "bus = \"bus-b\"", "which is not here");
    wrong("/dev/ttyUSB1", "/dev/ttyUSB0", "both have port /dev/ttyUSB0");
    wrong("address = 3", "address = 3\nport = \"/dev/ttyS0\"", "a port of its own or stands on a bus");
    wrong("address = 3", "address = 3\nbaud = 9600", "the speed of the bus");
    wrong("name = \"bus-a\"", "name = \"node-b\"", "two devices are called");
}

#[test]
fn care_rules_are_read_and_must_make_sense() {
    let home = |care: &str| {
        let text = GOOD.replace("left_open_after = \"15m\"", &format!("left_open_after = \"15m\"\ncare = {care}"));
        Config::parse(&format!("{text}\n[care]\ntime_zone = \"+08:00\"\n"), Path::new("/base"))
    };
    let rule = |care: &str| home(care).unwrap().nodes[0].channels[&1].care.clone().unwrap();
    let hours = |h: u64| Duration::from_secs(3600 * h);
    assert_eq!(rule("{}"), CareRule::default());
    let own = rule("{ tier = \"low\", red = \"96h\", nights = false, adaptive = false }");
    assert_eq!(
        (own.limits().red, own.limits().yellow, own.night.is_some(), own.adaptive),
        (hours(96), hours(36), false, false)
    );
    let soon = rule("{ orange = \"30h\", red = \"36h\" }").limits();
    assert!(soon.yellow <= soon.longest_first && soon.longest_first < soon.red, "{soon:?}");
    for (care, part) in [
        ("{ tier = \"brave\" }", "\"high\" or \"standard\" or \"low\""),
        ("{ yellow = \"40h\" }", "yellow < orange < red"),
        ("{ left_open_night = \"1h\" }", "left_open_night <= left_open"),
        ("{ longest_first = \"60h\" }", "longest_first < red"),
        ("{ red = \"2h\" }", "\"12h\" to \"14d\""),
    ] {
        let found = home(care).unwrap_err();
        assert!(found.iter().any(|f| f.to_string().contains(part)), "{care}: {found:?}");
    }
    let smoke = GOOD.replace("class = \"door\"\nleft_open_after = \"15m\"", "class = \"smoke\"\ncare = {}");
    assert!(faults(&smoke).iter().any(|f| f.problem.contains("watch a door")));
    for (night, part) in
        [("begins = \"05:00\"", "no length"), ("ends = \"25:00\"", "a local time"), ("openings_min = 1", "2 to 100")]
    {
        let found = faults(&format!("{GOOD}\n[care.night]\n{night}\n"));
        assert!(found.iter().any(|f| f.to_string().contains(part)), "{night}: {found:?}");
    }
    assert!(faults(&format!("{GOOD}\n[care]\ntime_zone = \"Mars/Olympus\"\n"))[0].remedy.contains("+08:00"));
}

#[test]
fn a_device_may_have_a_day_of_replacement() {
    let with = |day: &str| GOOD.replace("left_open_after = \"15m\"", &format!("replace_by = {day}"));
    let config = Config::parse(&with("\"2034-06-30\""), Path::new("/base")).unwrap();
    assert_eq!(config.nodes[0].channels[&1].replace_by, Some(jiff::civil::date(2034, 6, 30)));
    assert!(
        faults(&with("\"30.6.2034\"")).iter().any(|f| f.key.ends_with("replace_by") && f.remedy.contains("2034-06-30"))
    );
}

#[test]
fn lamp_and_sounder_name_their_lines() {
    let text =
        format!("{GOOD}\n[annunciation]\nreceipt_within = \"8s\"\nlamp = {{ chip = \"/dev/gpiochip0\", line = 17 }}\n");
    let config = Config::parse(&text, Path::new("/base")).unwrap();
    let lamp = Line { chip: "/dev/gpiochip0".into(), line: 17, active_low: false };
    assert_eq!(config.annunciation.lamp, Some(lamp));
    assert_eq!(config.annunciation.receipt_within, Duration::from_secs(8));
    assert!(faults(&text.replace(", line = 17", "")).iter().any(|f| f.key == "annunciation.lamp.line"));
    assert!(faults(&text.replace("8s", "2m")).iter().any(|f| f.key == "annunciation.receipt_within"));
}

#[test]
fn brokers_are_a_list_in_order_of_preference_or_one() {
    let parsed = |uplink: &str| {
        let text = format!("[gateway]\nsite = \"s\"\nname = \"g\"\ndata_dir = \"/d\"\n[uplink]\n{uplink}\n");
        Config::parse(&text, Path::new("/"))
    };
    let several = parsed(
        "brokers = [\"a:8883\", \"[::1]:1883\"]\nbroker_attempts = 5\nbroker_return_after = \"1h\"\npacket_kib_max = 256",
    );
    let uplink = several.unwrap().uplink;
    assert_eq!((uplink.host.as_str(), uplink.port, uplink.others.len()), ("a", 8883, 1));
    assert_eq!((uplink.others[0].to_string().as_str(), uplink.packet_bytes_max), ("[::1]:1883", Some(256 << 10)));
    assert_eq!((uplink.switch.attempts, uplink.switch.return_after), (5, Duration::from_secs(3600)));
    assert!(parsed("broker = \"a:1883\"").unwrap().uplink.others.is_empty());
    for (wrong, said) in [
        ("brokers = []", "empty"),
        ("brokers = [\"a:1\", \"b:1\", \"a:1\"]", "twice"),
        ("broker = \"a:1\"\nbrokers = [\"b:1\"]", "both"),
        ("brokers = [\"a\"]", "host:port"),
        ("", "uplink.broker"),
    ] {
        let faults = parsed(wrong).unwrap_err();
        let told = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains(said), "{wrong}: {told}");
    }
}

#[test]
fn a_managed_identity_excludes_given_files_and_is_what_an_enrolment_server_is_for() {
    let tls = |keys: &str| {
        let text = GOOD.replace("[[node]]", &format!("[uplink.tls]\nca_file = \"ca.pem\"\n{keys}\n[[node]]"));
        Config::parse(&text, Path::new("/base"))
    };
    let enrol = "[uplink.tls.enrol]\nurl = \"https://ca.example\"\nusername = \"gw-1\"\npassword_file = \"once\"";
    let config = tls(&format!("identity = \"managed\"\ncrl_file = \"brokers.crl\"\n{enrol}")).unwrap();
    let read = config.uplink.tls.unwrap();
    assert!(read.is_managed && read.crl_file.as_deref() == Some(Path::new("/base/brokers.crl")));
    let enrolment = read.enrol.unwrap();
    assert_eq!(enrolment.ca_file, Path::new("/base/ca.pem"), "as for the broker, unless said otherwise");
    assert_eq!(enrolment.place.to_string(), "https://ca.example:443/.well-known/est");
    for (keys, part) in [
        ("identity = \"managed\"\ncert_file = \"c\"\nkey_file = \"k\"", "remove `cert_file`"),
        ("identity = \"mine\"", "\"managed\""),
        (enrol, "add `identity"),
        ("identity = \"managed\"\n[uplink.tls.enrol]\nurl = \"http://ca.example\"", "https"),
    ] {
        let found = tls(keys).unwrap_err();
        assert!(found.iter().any(|f| f.to_string().contains(part)), "{keys}: {found:?}");
    }
}

#[test]
fn zones_have_the_limits_of_the_trade_and_may_say_their_own() {
    let zone = |keys: &str| {
        let text = GOOD.replace("kind = \"illegal_parking\"\nlimit = \"180s\"", keys);
        Config::parse(&text, Path::new("/base")).map(|config| config.cameras[0].zones[0].rule.clone())
    };
    let rule = |keys: &str| zone(keys).unwrap_or_else(|faults| panic!("{keys}: {faults:?}"));
    let s = Duration::from_secs;
    for (kind, limit, warn) in [
        ("fire_lane_blocked", 60, None),
        ("no_stopping", 180, Some(60)),
        ("temporary_stop", 300, None),
        ("pavement", 60, None),
        ("cycle_parking", 600, None),
        ("litter", 300, None),
        ("accumulated_waste", 7200, None),
        ("bin_overflow", 600, None),
        ("waste", 300, None),
    ] {
        let rule = rule(&format!("kind = \"{kind}\""));
        assert_eq!((rule.limit, rule.warn_after), (s(limit), warn.map(s)), "{kind}");
        assert!(rule.classes.iter().all(|class| rule.kind.admits(*class)), "{kind}");
    }
    let own = rule(
        "kind = \"waste\"\nlimit = \"7m\"\noverflow_limit = \"20m\"\nclear_after = \"1m\"\nhours = [\"Mon-Fri 07:00-20:00\"]",
    );
    assert_eq!((own.limit, own.overflow_limit, own.clear_after), (s(420), s(1200), s(60)));
    assert_ne!(own.hours, gengfu_alarm::Hours::always());
    for (keys, key, part) in [
        ("kind = \"illegal_parking\"", "limit", "is missing"),
        ("kind = \"parking\"\nlimit = \"1m\"", "kind", "\"waste\""),
        ("kind = \"no_stopping\"\nwarn = \"3m\"", "warn", "warn < limit"),
        ("kind = \"litter\"\nvehicles = [\"car\"]", "vehicles", "remove it"),
        ("kind = \"litter\"\noverflow_limit = \"1m\"", "overflow_limit", "\"waste\""),
        ("kind = \"cycle_parking\"\nvehicles = [\"car\"]", "vehicles", "motorcycle, bicycle"),
        ("kind = \"no_stopping\"\nhours = [\"Mon-Fri\"]", "hours[0]", "Mon-Fri 07:00-20:00"),
        ("kind = \"no_stopping\"\nhours = []", "hours", "leave it out"),
        ("kind = \"no_stopping\"\nhuors = []", "huors", "did you mean `hours`"),
    ] {
        let found = zone(keys).unwrap_err();
        let told = found.iter().any(|f| f.key == format!("camera[0].zone[0].{key}") && f.to_string().contains(part));
        assert!(told, "{keys}: {found:?}");
    }
}
