//! Every file in `config/` is one that the product takes. Method: find all files there, and give each to the part that reads it; a file
//! that nobody reads is a fault too, so that an example cannot rot. (The broker's files are tried on a real mosquitto in `broker_config`.)

use std::fs;
use std::path::{Path, PathBuf};

use gengfu::config::Config;
use hil_tests::clip::repository;

/// Everything under `folder`, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("read {}: {e}", folder.display())).flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Loads one file with the part of the product that reads it; the error says what is wrong with the file.
fn load(file: &Path) -> Result<(), String> {
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let text = || fs::read_to_string(file).map_err(|e| e.to_string());
    match (folder.as_str(), file.extension().and_then(|e| e.to_str())) {
        ("profiles", Some("toml")) => gengfu::sensors::profile::load(file).map(|_| ()).map_err(|e| e.to_string()),
        ("config", Some("toml")) => Config::load(file).map(|_| ()).map_err(|e| e.to_string()),
        ("codes", Some("toml")) => {
            let codes: gengfu_alarm::codes::CodeFile = toml::from_str(&text()?).map_err(|e| e.to_string())?;
            codes.check().map_err(|e| e.to_string())
        }
        // Loaded by mosquitto itself in tests/broker_config.rs.
        ("broker", _) => text().map(|_| ()),
        ("systemd", Some("service")) => unit(&text()?),
        _ => Err("no part of the product reads such a file: teach this test who does".to_owned()),
    }
}

/// A systemd unit that runs a verb of ours with a configuration.
fn unit(text: &str) -> Result<(), String> {
    let starts = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).ok_or("no ExecStart")?;
    if !starts.contains("gengfu run") {
        return Err(format!("ExecStart is {starts:?}, which does not run the gateway"));
    }
    let before_service = text.split("\n[Service]").next().unwrap_or_default();
    if !before_service.lines().any(|line| line == "StartLimitIntervalSec=0") {
        return Err(
            "no StartLimitIntervalSec=0 in [Unit]: systemd gives up after five starts in ten seconds".to_owned()
        );
    }
    let restart = format!("RestartForceExitStatus={}", gengfu::settings::RESTART_CODE);
    if !text.lines().any(|line| line == restart) {
        return Err(format!("no {restart}: a gateway that changes its configuration is not started again"));
    }
    if text.contains("Restart=") { Ok(()) } else { Err("a gateway that ends is not started again".to_owned()) }
}

#[test]
fn every_file_in_config_loads() {
    let files = files(&repository().join("config"));
    for expected in ["gengfu.example.toml", "demo.toml", "mosquitto.conf", "gbt47678-5-2026.toml"] {
        assert!(files.iter().any(|file| file.ends_with(expected)), "config/ has no {expected}");
    }
    let faults: Vec<String> =
        files.iter().filter_map(|file| load(file).err().map(|fault| format!("{}: {fault}", file.display()))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_damaged_file_does_not_load() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, damage) in
        [("demo.toml", ("limit = ", "limt = ")), ("gengfu.example.toml", ("class = \"door\"", "class = \"dor\""))]
    {
        let text = fs::read_to_string(repository().join("config").join(name)).expect(name);
        assert!(text.contains(damage.0), "{name} has no {:?} to damage", damage.0);
        let damaged = folder.path().join(name);
        fs::write(&damaged, text.replacen(damage.0, damage.1, 1)).expect("write");
        assert!(Config::load(&damaged).is_err(), "a damaged {name} loads");
    }
    assert!(unit("[Service]\nExecStart=/usr/bin/true\n").is_err(), "any unit is taken");
}

#[test]
fn the_example_shows_every_default_as_it_is() {
    // A key behind a single "#" claims its default: with all of them switched on, nothing may change.
    let path = repository().join("config/gengfu.example.toml");
    let text = fs::read_to_string(&path).expect("the example");
    let shown: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // "#key = value", not a remark.
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let base = Path::new("/etc/gengfu");
    let plain = Config::parse(&text, base).expect("the example is valid");
    let with_defaults = Config::parse(&shown.join("\n"), base).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert!(shown.join("\n") != text, "the example shows no default at all");
    // Lanes' bounds and a camera's model become explicit; everything else is the same, said or not.
    assert_eq!(format!("{:#?}", plain.uplink), format!("{:#?}", with_defaults.uplink));
    assert_eq!(format!("{:#?}", plain.nodes), format!("{:#?}", with_defaults.nodes));
    assert_eq!(format!("{:#?}", plain.buses), format!("{:#?}", with_defaults.buses));
    assert_eq!(format!("{:#?}", plain.sensors), format!("{:#?}", with_defaults.sensors));
    assert_eq!((&plain.care, &plain.annunciation), (&with_defaults.care, &with_defaults.annunciation));
    let numbers = |config: &Config| {
        let (o, v) = (&config.outbox, &config.vision);
        let shared = (v.threads, v.cameras_per_worker, v.load_shedding);
        (o.cache_bytes, o.journal_keep, v.model.clone(), shared, v.worker_memory_bytes, v.fault_hold)
    };
    assert_eq!(numbers(&plain), numbers(&with_defaults));
    let camera = |config: &Config| {
        let c = &config.cameras[0];
        (c.decode, c.transport, c.every, c.fps_max.to_bits(), c.repeat, c.silence)
    };
    assert_eq!(camera(&plain), camera(&with_defaults));
}
