//! From the text to [`Config`]: one function per table.
//!
//! Owns keys, defaults and bounds. Each function asks for its keys and calls `finish`, so a key that nobody asked for is a fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gengfu_contract::event::Location;
use gengfu_contract::words::Lane;
use toml::de::DeTable;

use crate::identity::est::Place;
use crate::sensors;
use crate::uplink::{Address, SwitchPolicy};

use super::reader::{Fault, Faults, Section};
use super::{
    Bus, Camera, Config, Enrol, EvidenceLimits, Gateway, Local, Node, OutboxLimits, Protocol, Tls, Uplink, Vision,
};
use super::{cameras, care, changes, names, nodes, outputs, people};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn config(text: &str, base: &Path) -> Result<Config, Vec<Fault>> {
    let mut faults = Faults::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |s| s.start);
            faults.push(at, "(syntax)", error.message().to_owned(), "correct the TOML here; what follows was not read");
            return Err(faults.into_sorted());
        }
    };
    let mut root = Section::root(&table);
    let f = &mut faults;
    let gateway = root.section(f, "gateway").map(|s| gateway(f, s, base));
    root.required(
        f,
        "gateway",
        gateway.as_ref(),
        "{ site = \"jinding\", name = \"block-7\", data_dir = \"/var/lib/gengfu\" }",
    );
    let gateway = gateway.flatten();
    let uplink = root.section(f, "uplink").map(|s| uplink(f, s, base, gateway.as_ref()));
    root.required(f, "uplink", uplink.as_ref(), "{ broker = \"mqtt.example:8883\" }");
    let section = root.section(f, "outbox");
    let outbox = outbox(f, section);
    let data_dir = gateway.as_ref().map_or_else(|| base.to_owned(), |g| g.data_dir.clone());
    let section = root.section(f, "local");
    let local = local(f, section, base, &data_dir);
    let section = root.section(f, "evidence");
    let evidence = evidence(f, section);
    let section = root.section(f, "vision");
    let vision = vision(f, section, base, &data_dir);
    let place = gateway.as_ref().map(|g| g.location.clone()).unwrap_or_default();
    let section = root.section(f, "care");
    let care = care::district(f, section);
    let section = root.section(f, "firmware");
    let firmware_keys = firmware_keys(f, section, base);
    let section = root.section(f, "config");
    let changes = changes::changes(f, section, base);
    let section = root.section(f, "annunciation");
    let annunciation = outputs::annunciation(f, section, base);
    let section = root.section(f, "escalation");
    let escalation = people::escalation(f, section);
    let section = root.section(f, "drill");
    let drill = people::drill(f, section, &care.zone);
    let buses: Vec<Bus> = root.sections(f, "bus").into_iter().filter_map(|s| nodes::bus(f, s, base, &place)).collect();
    let nodes: Vec<Node> =
        root.sections(f, "node").into_iter().filter_map(|s| nodes::node(f, s, base, &place, &care)).collect();
    let cameras: Vec<Camera> =
        root.sections(f, "camera").into_iter().filter_map(|s| cameras::camera(f, s, base, &place)).collect();
    let sensors = sensors::config::read(f, &mut root, base, &place, &care);
    names::check(f, &root, &buses, &nodes, &cameras, &sensors);
    people::check_heads(f, &root, &drill, &nodes);
    root.finish(f);
    let faults = faults.into_sorted();
    match (gateway, uplink.flatten()) {
        (Some(gateway), Some(uplink)) if faults.is_empty() => Ok(Config {
            gateway,
            uplink,
            outbox,
            local,
            vision,
            evidence,
            care,
            firmware_keys,
            changes,
            annunciation,
            escalation,
            drill,
            buses,
            nodes,
            sensors,
            cameras,
        }),
        _ => Err(faults),
    }
}

fn firmware_keys(f: &mut Faults, section: Option<Section>, base: &Path) -> Vec<PathBuf> {
    let Some(mut s) = section else { return Vec::new() };
    let keys = s.list(f, "trusted", "a file name in quotes", |v| v.as_str().map(|p| resolve(base, p)));
    s.finish(f);
    keys.unwrap_or_default()
}

/// A path of the file; relative ones start at the file's folder.
pub(crate) fn path(f: &mut Faults, s: &mut Section, key: &'static str, base: &Path) -> Option<PathBuf> {
    s.text(f, key).map(|p| resolve(base, &p))
}

/// `text` from the folder `base`, without detours over `..`: what people read in `status` and in messages.
pub(crate) fn resolve(base: &Path, text: &str) -> PathBuf {
    use std::path::Component;
    let mut path = PathBuf::new();
    for part in base.join(text).components() {
        match part {
            Component::ParentDir if matches!(path.components().next_back(), Some(Component::Normal(_))) => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

fn gateway(f: &mut Faults, mut s: Section, base: &Path) -> Option<Gateway> {
    let site = s.slug(f, "site");
    let site = s.required(f, "site", site, "\"jinding\"");
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"block-7\"");
    if name.as_ref().is_some_and(|n| n.as_str() == "dispatch") {
        s.fault(f, "name", "\"dispatch\" is the centre's own name on the broker", "choose another name");
    }
    let data_dir = path(f, &mut s, "data_dir", base);
    let data_dir = s.required(f, "data_dir", data_dir, "\"/var/lib/gengfu\"");
    let location = location(f, &mut s, &Location::default());
    let codes =
        s.list(f, "codes", "a file name in quotes", |v| v.as_str().map(|p| resolve(base, p))).unwrap_or_default();
    s.finish(f);
    Some(Gateway { site: site?, name: name?, data_dir: data_dir?, location, codes })
}

/// `broker`, or `brokers` in order of preference.
fn brokers(f: &mut Faults, s: &mut Section) -> Option<Vec<Address>> {
    let address = |(host, port)| Address { host, port };
    let one = s.parsed(f, "broker", "\"host:port\", as in \"mqtt.example:8883\"", |v| host_port(v.as_str()?));
    let list = s.list(f, "brokers", "\"host:port\", as in \"mqtt.example:8883\"", |v| host_port(v.as_str()?));
    match (one, list) {
        (Some(_), Some(_)) => {
            s.fault(f, "brokers", "both `broker` and `brokers` are given", "keep `brokers`, the preferred one first");
            None
        }
        (None, Some(list)) => {
            let list: Vec<Address> = list.into_iter().map(address).collect();
            if list.is_empty() {
                s.fault(f, "brokers", "the list is empty", "name at least one broker, the preferred one first");
            }
            if (1..list.len()).any(|n| list[..n].contains(&list[n])) {
                s.fault(f, "brokers", "a broker stands there twice", "name each broker once");
            }
            (!list.is_empty()).then_some(list)
        }
        (one, None) => s.required(f, "broker", one, "\"mqtt.example:8883\"").map(|one| vec![address(one)]),
    }
}

fn switch_policy(f: &mut Faults, s: &mut Section) -> SwitchPolicy {
    let usual = SwitchPolicy::default();
    let attempts = s.integer(f, "broker_attempts", 1..=100).and_then(|n| u32::try_from(n).ok());
    let hour = 3600 * SECOND;
    SwitchPolicy {
        attempts: attempts.unwrap_or(usual.attempts),
        receipts_within: s.duration(f, "broker_receipts_within", 5 * SECOND..=hour).unwrap_or(usual.receipts_within),
        return_after: s.duration(f, "broker_return_after", SECOND..=7 * DAY).unwrap_or(usual.return_after),
    }
}

fn uplink(f: &mut Faults, mut s: Section, base: &Path, gateway: Option<&Gateway>) -> Option<Uplink> {
    let brokers = brokers(f, &mut s);
    let switch = switch_policy(f, &mut s);
    let packet_kib_max = s.integer(f, "packet_kib_max", 16..=262_144).and_then(|n| u32::try_from(n).ok());
    let protocol = s.one_of(f, "protocol", &[("5", Protocol::Mqtt5), ("3.1.1", Protocol::Mqtt311)]);
    let own_id = gateway.map(|g| format!("gengfu-{}-{}", g.site, g.name)).unwrap_or_default();
    let client_id = s.text(f, "client_id").unwrap_or(own_id);
    let username = s.text(f, "username");
    let password_file = path(f, &mut s, "password_file", base);
    if password_file.is_some() && username.is_none() {
        s.fault(f, "password_file", "a password without a user", "add `username = \"…\"`");
    }
    // MQTT lets a broker wait 1.5 times the keep-alive; mission.md wants a dead gateway known within 90 s.
    let keep_alive = s.duration(f, "keep_alive", 5 * SECOND..=60 * SECOND).unwrap_or(30 * SECOND);
    let window = s.integer(f, "window", 8..=1024).and_then(|n| u16::try_from(n).ok()).unwrap_or(64);
    let pace = s.integer(f, "backlog_per_second", 0..=100_000).and_then(|n| u32::try_from(n).ok());
    let minute = 60 * SECOND;
    let historical_after = s.duration(f, "historical_after", SECOND..=DAY).unwrap_or(30 * SECOND);
    let life = s.duration(f, "receipt_timeout_life_safety", SECOND..=minute).unwrap_or(10 * SECOND);
    let receipt_timeout = s.duration(f, "receipt_timeout", SECOND..=DAY).unwrap_or(minute);
    let device_refresh = s.duration(f, "device_refresh", 10 * SECOND..=DAY);
    let tls = s.section(f, "tls").and_then(|s| tls(f, s, base));
    s.finish(f);
    let mut brokers = brokers?.into_iter();
    let Address { host, port } = brokers.next()?;
    Some(Uplink {
        host,
        port,
        others: brokers.collect(),
        switch,
        packet_bytes_max: packet_kib_max.map(|kib| kib << 10),
        protocol: protocol.unwrap_or(Protocol::Mqtt5),
        client_id,
        username,
        password_file,
        keep_alive,
        window,
        backlog_per_second: pace.unwrap_or(300),
        historical_after,
        receipt_timeout_life_safety: life,
        receipt_timeout,
        device_refresh,
        tls,
    })
}

fn tls(f: &mut Faults, mut s: Section, base: &Path) -> Option<Tls> {
    let ca_file = path(f, &mut s, "ca_file", base);
    let ca_file = s.required(f, "ca_file", ca_file, "\"ca.pem\"");
    let cert_file = path(f, &mut s, "cert_file", base);
    let key_file = path(f, &mut s, "key_file", base);
    if cert_file.is_some() != key_file.is_some() {
        s.fault(f, "cert_file", "certificate and key go together", "give both `cert_file` and `key_file`, or neither");
    }
    let is_managed = s.one_of(f, "identity", &[("managed", true)]).unwrap_or(false);
    if is_managed && (cert_file.is_some() || key_file.is_some()) {
        let remedy = "remove `cert_file` and `key_file`, or `identity`";
        s.fault(f, "identity", "a managed identity has its key and certificate in the data folder", remedy);
    }
    let crl_file = path(f, &mut s, "crl_file", base);
    let enrol = s.section(f, "enrol").and_then(|e| enrol(f, e, base, ca_file.as_deref()));
    if enrol.is_some() && !is_managed {
        s.fault(f, "enrol", "certificates are fetched for a managed identity only", "add `identity = \"managed\"`");
    }
    s.finish(f);
    Some(Tls { ca_file: ca_file?, cert_file, key_file, is_managed, crl_file, enrol })
}

fn enrol(f: &mut Faults, mut s: Section, base: &Path, ca: Option<&Path>) -> Option<Enrol> {
    let example = "\"https://ca.example/.well-known/est\"";
    let place = s.parsed(f, "url", "a URL with https, as in \"https://ca.example/.well-known/est\"", |v| {
        Place::parse(v.as_str()?)
    });
    let place = s.required(f, "url", place, example);
    let ca_file = path(f, &mut s, "ca_file", base).or_else(|| ca.map(Path::to_owned));
    let username = s.text(f, "username").unwrap_or_default();
    let password_file = path(f, &mut s, "password_file", base);
    s.finish(f);
    Some(Enrol { place: place?, ca_file: ca_file?, username, password_file })
}

fn outbox(f: &mut Faults, section: Option<Section>) -> OutboxLimits {
    let mut limits = OutboxLimits { cache_bytes: 4 << 20, journal_keep: 20_000, bounds: BTreeMap::new() };
    if let Some(mut s) = section {
        if let Some(mib) = s.integer(f, "cache_mib", 1..=1024) {
            limits.cache_bytes = mib.unsigned_abs() << 20;
        }
        if let Some(keep) = s.integer(f, "journal_keep", 1_000..=100_000_000) {
            limits.journal_keep = keep.unsigned_abs();
        }
        let lanes: [(&'static str, Lane); 5] = [
            ("trouble_max", Lane::Trouble),
            ("care_max", Lane::Care),
            ("city_max", Lane::City),
            ("telemetry_max", Lane::Telemetry),
            ("evidence_max", Lane::Evidence),
        ];
        for (key, lane) in lanes {
            if let Some(most) = s.integer(f, key, 100..=100_000_000) {
                limits.bounds.insert(lane, most.unsigned_abs());
            }
        }
        s.finish(f);
    }
    limits
}

fn local(f: &mut Faults, section: Option<Section>, base: &Path, data_dir: &Path) -> Local {
    let mut local = Local { socket: data_dir.join("gengfu.sock"), metrics: None };
    if let Some(mut s) = section {
        if let Some(socket) = path(f, &mut s, "socket", base) {
            local.socket = socket;
        }
        local.metrics =
            s.parsed(f, "metrics", "\"address:port\", as in \"127.0.0.1:9464\"", |v| v.as_str()?.parse().ok());
        s.finish(f);
    }
    local
}

fn vision(f: &mut Faults, section: Option<Section>, base: &Path, data_dir: &Path) -> Vision {
    let mut vision = Vision {
        manifest: data_dir.join("models/manifest.toml"),
        models_dir: data_dir.join("models"),
        onnxruntime: data_dir.join("lib/libonnxruntime.so"),
        model: "yolox_nano".to_owned(),
        second_model: None,
        threads: 1,
        cameras_per_worker: 8,
        load_shedding: true,
        worker_memory_bytes: 1 << 30,
        fault_hold: 10 * SECOND,
    };
    if let Some(mut s) = section {
        vision.manifest = path(f, &mut s, "manifest", base).unwrap_or(vision.manifest);
        vision.models_dir = path(f, &mut s, "models_dir", base).unwrap_or(vision.models_dir);
        vision.onnxruntime = path(f, &mut s, "onnxruntime", base).unwrap_or(vision.onnxruntime);
        vision.model = s.text(f, "model").unwrap_or(vision.model);
        vision.second_model = s.text(f, "second_model");
        vision.threads = s.integer(f, "threads", 1..=64).and_then(|n| u16::try_from(n).ok()).unwrap_or(vision.threads);
        if let Some(count) = s.integer(f, "cameras_per_worker", 1..=64) {
            vision.cameras_per_worker = usize::try_from(count).unwrap_or(1);
        }
        vision.load_shedding = s.flag(f, "load_shedding", vision.load_shedding);
        if let Some(mib) = s.integer(f, "worker_memory_mib", 64..=16_384) {
            vision.worker_memory_bytes = mib.unsigned_abs() << 20;
        }
        vision.fault_hold = s.duration(f, "fault_hold", Duration::ZERO..=DAY).unwrap_or(vision.fault_hold);
        s.finish(f);
    }
    vision
}

fn evidence(f: &mut Faults, section: Option<Section>) -> EvidenceLimits {
    let mut limits = EvidenceLimits { keep: 7 * DAY, bytes_max: 512 << 20 };
    if let Some(mut s) = section {
        limits.keep = s.duration(f, "keep", 3600 * SECOND..=30 * DAY).unwrap_or(limits.keep);
        if let Some(mib) = s.integer(f, "mib_max", 16..=1 << 20) {
            limits.bytes_max = mib.unsigned_abs() << 20;
        }
        s.finish(f);
    }
    limits
}

/// `location = { division = "440402", text = "…" }`; what is not said is inherited.
pub(crate) fn location(f: &mut Faults, s: &mut Section, inherited: &Location) -> Location {
    let mut place = inherited.clone();
    let Some(mut l) = s.section(f, "location") else { return place };
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(d) = l.parsed(f, "division", "6 digits of GB/T 2260 in quotes", |v| {
        v.as_str().filter(|t| digits(t, 6)).map(str::to_owned)
    }) {
        place.division = Some(d);
    }
    if let Some(g) = l.parsed(f, "grid", "15 digits of the management grid in quotes", |v| {
        v.as_str().filter(|t| digits(t, 15)).map(str::to_owned)
    }) {
        place.grid = Some(g);
    }
    place.text = l.text(f, "text").or(place.text);
    place.lon = l.number(f, "lon", -180.0..=180.0).or(place.lon);
    place.lat = l.number(f, "lat", -90.0..=90.0).or(place.lat);
    l.finish(f);
    place
}

pub(crate) fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|p| *p != 0)?;
    (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
}
