//! Sensor nodes, the buses they share, and what hangs on them, from text to checked values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gengfu_alarm::policy::{CareRule, SupervisionClass};
use gengfu_contract::event::Location;

use super::care::{self, CareDefaults};
use super::read::{DAY, SECOND, location, path};
use super::reader::{Faults, Section, number_of};
use super::{Attachment, Bus, Device, DeviceClass, Node};

const BAUDS: [u32; 8] = [9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600];
const BAUD: u32 = 115_200;
/// Most USB adapters hand on what they have received after 16 ms at the latest.
const TURNAROUND: Duration = Duration::from_millis(25);

fn baud(f: &mut Faults, s: &mut Section) -> Option<u32> {
    s.parsed(f, "baud", "one of 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600", |v| {
        number_of(v).and_then(|n| BAUDS.into_iter().find(|b| f64::from(*b) == n))
    })
}

/// `[[bus]]`.
pub(super) fn bus(f: &mut Faults, mut s: Section, base: &Path, place: &Location) -> Option<Bus> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"bus-a\"");
    let port = path(f, &mut s, "port", base);
    let port = s.required(f, "port", port, "\"/dev/serial/by-path/…\"");
    let baud = baud(f, &mut s).unwrap_or(BAUD);
    let longest = Duration::from_millis(500);
    let turnaround = s.duration(f, "turnaround", Duration::from_millis(1)..=longest).unwrap_or(TURNAROUND);
    let location = location(f, &mut s, place);
    s.finish(f);
    Some(Bus { name: name?, port: port?, baud, turnaround, location })
}

/// `[[node]]`.
pub(super) fn node(
    f: &mut Faults,
    mut s: Section,
    base: &Path,
    place: &Location,
    defaults: &CareDefaults,
) -> Option<Node> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"node-301\"");
    let at = attachment(f, &mut s, base);
    let baud = baud(f, &mut s);
    if baud.is_some() && matches!(at, Some(Attachment::Bus { .. })) {
        s.fault(f, "baud", "a node on a bus has the speed of the bus", "remove it here; set it in [[bus]]");
    }
    let uid = s.parsed(f, "uid", "the node's unique id, 16 hex digits in quotes", |v| {
        v.as_str().filter(|t| t.len() == 16).and_then(|t| u64::from_str_radix(t, 16).ok())
    });
    let silence = s.duration(f, "silence", 5 * SECOND..=DAY).unwrap_or(90 * SECOND);
    let heartbeat = s.duration(f, "heartbeat", SECOND..=3600 * SECOND);
    if heartbeat.is_some_and(|every| every > silence / 2) {
        s.fault(
            f,
            "heartbeat",
            "one lost heartbeat would count as a dead node",
            "choose at most half of `silence` (a third is a good measure)",
        );
    }
    let debounce = s.duration(f, "debounce", Duration::from_millis(1)..=5 * SECOND);
    let sounder = s.flag(f, "sounder", false);
    let dwelling = s.text(f, "dwelling");
    let mut channels = BTreeMap::new();
    for section in s.sections(f, "device") {
        let key = section.key("channel");
        if let Some((channel, device, at)) = device(f, section, place, defaults)
            && channels.insert(channel, device).is_some()
        {
            f.push(at, key, format!("channel {channel} has two devices"), "give each device a channel of its own");
        }
    }
    s.finish(f);
    let baud = baud.unwrap_or(BAUD);
    Some(Node { name: name?, at: at?, baud, uid, silence, heartbeat, debounce, sounder, dwelling, channels })
}

fn attachment(f: &mut Faults, s: &mut Section, base: &Path) -> Option<Attachment> {
    let port: Option<PathBuf> = path(f, s, "port", base);
    let bus = s.slug(f, "bus");
    let address = s.integer(f, "address", 1..=247).and_then(|n| u8::try_from(n).ok());
    match (port, bus) {
        (Some(_), Some(_)) => {
            s.fault(f, "bus", "a node has a port of its own or stands on a bus", "remove `port` or `bus`");
            None
        }
        (Some(port), None) => {
            if address.is_some() {
                s.fault(f, "address", "a node on a port of its own has no address", "remove it, or give `bus`");
            }
            Some(Attachment::Port(port))
        }
        (None, Some(bus)) => {
            let address = s.required(f, "address", address, "1")?;
            Some(Attachment::Bus { bus, address })
        }
        (None, None) => {
            s.required(f, "port", None::<()>, "\"/dev/serial/by-path/…\"");
            None
        }
    }
}

fn device(f: &mut Faults, mut s: Section, place: &Location, defaults: &CareDefaults) -> Option<(u8, Device, usize)> {
    let at = s.at();
    let channel = s.integer(f, "channel", 1..=31).and_then(|n| u8::try_from(n).ok());
    let channel = s.required(f, "channel", channel, "1");
    let device = common(f, &mut s, place, defaults, DeviceClass::from_word);
    s.finish(f);
    Some((channel?, device?, at))
}

/// The keys that every sensor has, whatever brings its news.
pub(crate) fn common(
    f: &mut Faults,
    s: &mut Section,
    place: &Location,
    defaults: &CareDefaults,
    class_of: impl Fn(&str) -> Option<DeviceClass>,
) -> Option<Device> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"door-301\"");
    let class = s.parsed(f, "class", DeviceClass::WORDS, |v| v.as_str().and_then(&class_of));
    let class = s.required(f, "class", class, "\"door\"");
    let is_door = class.is_none_or(|c| c == DeviceClass::Door);
    let left_open_after = s.duration(f, "left_open_after", SECOND..=DAY);
    if left_open_after.is_some() && !is_door {
        s.fault(f, "left_open_after", "only a door can be left open", "remove it, or set class = \"door\"");
    }
    let dwelling = s.text(f, "dwelling");
    let subject_ref = s.text(f, "subject_ref");
    let supervision = supervision(f, s);
    let replace_by = s.parsed(f, "replace_by", "a day in quotes, as in \"2034-06-30\"", |v| v.as_str()?.parse().ok());
    let care: Option<CareRule> = s.section(f, "care").and_then(|c| care::home(f, c, defaults));
    if care.is_some() && !is_door {
        s.fault(f, "care", "the care rules watch a door", "remove it, or set class = \"door\"");
    }
    let location = location(f, s, place);
    Some(Device {
        name: name?,
        class: class?,
        left_open_after,
        dwelling,
        subject_ref,
        supervision,
        replace_by,
        care,
        location,
    })
}

fn supervision(f: &mut Faults, s: &mut Section) -> Option<SupervisionClass> {
    use SupervisionClass::{S1, S2, S3};
    s.one_of(f, "supervision", &[("300s", S1), ("2h", S2), ("25h", S3)])
}
