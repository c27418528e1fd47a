//! From a profile's text to its types: one function per table. Owns keys, defaults, bounds and contradictions; each function asks for its
//! keys and calls `finish`, so that a key nobody asked for is a fault. Refuses to stop at the first fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gengfu_alarm::policy::SupervisionClass;
use gengfu_contract::words::Text;
use toml::de::DeValue;

use super::{Function, Map, ModbusMap, MqttMap, Payload, Point, Profile, Read, Shape, Topic, Value};
use crate::config::DeviceClass;
use crate::config::reader::{Faults, Section};
use crate::sensors::words::{self, Facet, Fact, Meaning, Quantity};

/// Most values of one profile; a source is their position.
const VALUES_MAX: usize = 1000;

pub(super) fn profile(f: &mut Faults, mut s: Section) -> Option<Profile> {
    let name = s.slug(f, "name");
    let name = s.required(f, "name", name, "\"maker-model\"");
    let maker = s.text(f, "maker");
    let maker = s.required(f, "maker", maker, "\"Aqara\"");
    let model = s.text(f, "model");
    let model = s.required(f, "model", model, "\"MCCGQ11LM\"");
    let source = s.text(f, "source");
    let source = s.required(f, "source", source, "\"https://… (datasheet, codec or documentation)\"");
    let classes = [
        ("door", Some(DeviceClass::Door)),
        ("smoke", Some(DeviceClass::Smoke)),
        ("sos", Some(DeviceClass::Sos)),
        ("any", None),
    ];
    let class = s.one_of(f, "class", &classes);
    let class = s.required(f, "class", class, "\"door\"");
    let supervisions = [("S1", SupervisionClass::S1), ("S2", SupervisionClass::S2), ("S3", SupervisionClass::S3)];
    let supervision = s.one_of(f, "supervision", &supervisions);
    let battery_mv_at = battery(f, &mut s);
    let is_modbus = s.one_of(f, "link", &[("modbus", true), ("mqtt", false)]);
    let is_modbus = s.required(f, "link", is_modbus, "\"modbus\"");
    let map = match is_modbus {
        Some(true) => modbus(f, &mut s).map(Map::Modbus),
        Some(false) => mqtt(f, &mut s).map(Map::Mqtt),
        None => None,
    };
    if let (Some(map), Some(class)) = (&map, class) {
        contradictions(f, &s, map, class, battery_mv_at.is_some());
    }
    s.finish(f);
    Some(Profile {
        name: name?.to_string(),
        maker: maker?,
        model: model?,
        source: source?,
        class: class?,
        supervision,
        battery_mv_at,
        map: map?,
    })
}

fn battery(f: &mut Faults, s: &mut Section) -> Option<[u32; 2]> {
    let list = s.list(f, "battery_mv_at", "millivolts from 500 to 20000", |v| {
        crate::config::reader::number_of(v).filter(|n| (500.0..=20_000.0).contains(n) && n.fract() == 0.0)
    })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "500 to 20000, whole")]
    match list[..] {
        [empty, full] if full >= empty + 100.0 => Some([empty as u32, full as u32]),
        _ => {
            let remedy = "write the empty and the full cell's, at least 100 mV apart, as in [2700, 3050]";
            s.fault(f, "battery_mv_at", "these are not two voltages, lower first", remedy);
            None
        }
    }
}

fn modbus(f: &mut Faults, s: &mut Section) -> Option<ModbusMap> {
    let reads: Vec<Option<Read>> = s.sections(f, "read").into_iter().map(|section| read(f, section)).collect();
    let points: Vec<Vec<Point>> =
        s.sections(f, "point").into_iter().map(|section| point(f, section, &reads).unwrap_or_default()).collect();
    if reads.is_empty() {
        s.fault(f, "read", "nothing is read", "add a [[read]] with name, function, address and count");
    }
    if points.is_empty() {
        s.fault(f, "point", "no value has a meaning", "add a [[point]] with read, address and states");
    }
    let points: Vec<Point> = points.into_iter().flatten().collect();
    if points.len() > VALUES_MAX {
        s.fault(
            f,
            "point",
            format!("{} values", points.len()),
            format!("at most {VALUES_MAX} belong into one profile"),
        );
    }
    let names: BTreeSet<&str> = reads.iter().flatten().map(|read| read.name.as_str()).collect();
    if names.len() < reads.iter().flatten().count() {
        s.fault(f, "read", "two reads have one name", "give each read a name of its own");
    }
    // One that was faulty leaves the profile faulty, so positions need not stay right.
    Some(ModbusMap { reads: reads.into_iter().flatten().collect(), points })
}

fn read(f: &mut Faults, mut s: Section) -> Option<Read> {
    let name = s.text(f, "name");
    let name = s.required(f, "name", name, "\"inputs\"");
    let functions = [
        ("coils", Function::Coils),
        ("discrete_inputs", Function::DiscreteInputs),
        ("holding_registers", Function::HoldingRegisters),
        ("input_registers", Function::InputRegisters),
    ];
    let function = s.one_of(f, "function", &functions);
    let function = s.required(f, "function", function, "\"discrete_inputs\"");
    let address = s.integer(f, "address", 0..=65_535).and_then(|n| u16::try_from(n).ok());
    let address = s.required(f, "address", address, "0");
    let most = function.map_or(2000, Function::count_max);
    let count = s.integer(f, "count", 1..=i64::from(most)).and_then(|n| u16::try_from(n).ok());
    let count = s.required(f, "count", count, "8");
    if let (Some(address), Some(count)) = (address, count)
        && u32::from(address) + u32::from(count) > 65_536
    {
        s.fault(f, "count", "reaches beyond address 65535", "lower it");
    }
    let every = s.duration(f, "every", Duration::from_millis(100)..=Duration::from_secs(3600));
    s.finish(f);
    Some(Read {
        name: name?,
        function: function?,
        address: address?,
        count: count?,
        every: every.unwrap_or(Duration::from_millis(500)),
    })
}

/// One `[[point]]`; with `repeat` it is several, on channels and addresses that follow each other.
fn point(f: &mut Faults, mut s: Section, reads: &[Option<Read>]) -> Option<Vec<Point>> {
    let name = s.text(f, "read");
    let name = s.required(f, "read", name, "\"inputs\"");
    let index = name.as_ref().and_then(|name| reads.iter().position(|r| r.as_ref().is_some_and(|r| r.name == *name)));
    let read = index.and_then(|index| reads[index].as_ref());
    if name.is_some() && index.is_none() && reads.iter().all(Option::is_some) {
        s.fault(f, "read", "there is no such read", "write the name of a [[read]]");
    }
    let address = s.integer(f, "address", 0..=65_535).and_then(|n| u16::try_from(n).ok());
    let address = s.required(f, "address", address, "0");
    let channel = s.integer(f, "channel", 0..=31).map_or(1, |n| u8::try_from(n).unwrap_or(1));
    let repeat = s.integer(f, "repeat", 1..=31).map_or(1, |n| u8::try_from(n).unwrap_or(1));
    if repeat > 1 && (channel == 0 || channel + repeat > 32) {
        s.fault(f, "repeat", "channels are 1 to 31", "lower `repeat`, or begin at a lower `channel`");
    }
    let shape = shape(f, &mut s, read.map(|read| read.function));
    let meaning = meaning(f, &mut s);
    let width = if matches!(shape, Some(Shape::Double { .. })) { 2 } else { 1 };
    if let (Some(read), Some(address)) = (read, address) {
        let last = u32::from(address) + u32::from(repeat - 1) + width;
        if address < read.address || last > u32::from(read.address) + u32::from(read.count) {
            let range = format!("{} to {}", read.address, u32::from(read.address) + u32::from(read.count) - 1);
            s.fault(f, "address", format!("is not in what \"{}\" reads ({range})", read.name), "correct one of them");
            s.finish(f);
            return None;
        }
    }
    s.finish(f);
    let (read_at, index, shape, meaning) = (read?.address, index?, shape?, meaning?);
    let at = address?.checked_sub(read_at)?;
    let one =
        |n: u8| Point { channel: channel + n, read: index, at: at + u16::from(n), shape, meaning: meaning.clone() };
    Some((0..repeat).map(one).collect())
}

fn shape(f: &mut Faults, s: &mut Section, function: Option<Function>) -> Option<Shape> {
    let kinds = [("u16", (false, false)), ("i16", (true, false)), ("u32", (false, true)), ("i32", (true, true))];
    let kind = s.one_of(f, "type", &kinds);
    let bit = s.integer(f, "bit", 0..=15).and_then(|n| u8::try_from(n).ok());
    let mask = s.integer(f, "mask", 1..=65_535).and_then(|n| u16::try_from(n).ok());
    let low_first = s.one_of(f, "word_order", &[("high_first", false), ("low_first", true)]);
    let function = function?;
    let given = usize::from(kind.is_some()) + usize::from(bit.is_some()) + usize::from(mask.is_some());
    if function.is_bits() {
        if given > 0 || low_first.is_some() {
            s.fault(f, "type", "a coil or an input is one bit", "remove type, bit, mask and word_order");
        }
        return Some(Shape::Bit);
    }
    if given > 1 {
        s.fault(f, "type", "type, bit and mask exclude each other", "keep one of them");
    }
    if low_first.is_some() && !kind.is_some_and(|(_, double)| double) {
        s.fault(f, "word_order", "only two registers have an order", "remove it, or set type = \"u32\" or \"i32\"");
    }
    Some(match (bit, mask, kind) {
        (Some(bit), ..) => Shape::RegisterBit(bit),
        (_, Some(mask), _) => Shape::Masked(mask),
        (_, _, Some((signed, true))) => Shape::Double { signed, low_first: low_first.unwrap_or(false) },
        (_, _, Some((signed, false))) => Shape::Word { signed },
        _ => Shape::Word { signed: false },
    })
}

fn mqtt(f: &mut Faults, s: &mut Section) -> Option<MqttMap> {
    let mut source = 0;
    let topics: Vec<Option<Topic>> =
        s.sections(f, "topic").into_iter().map(|section| topic(f, section, &mut source)).collect();
    if topics.is_empty() {
        s.fault(f, "topic", "no topic is read", "add a [[topic]] with pattern and [[topic.value]]");
    }
    if usize::from(source) > VALUES_MAX {
        s.fault(f, "topic", format!("{source} values"), format!("at most {VALUES_MAX} belong into one profile"));
    }
    Some(MqttMap { topics: topics.into_iter().flatten().collect() })
}

fn topic(f: &mut Faults, mut s: Section, source: &mut u16) -> Option<Topic> {
    let wanted = "a topic with {device} as a whole level, as in \"zigbee2mqtt/{device}\"";
    let pattern = s.parsed(f, "pattern", wanted, |v| v.as_str().filter(|t| is_pattern(t)).map(str::to_owned));
    let pattern = s.required(f, "pattern", pattern, "\"zigbee2mqtt/{device}\"");
    let kinds = [("json", Payload::Json), ("text", Payload::Text), ("any", Payload::Any)];
    let payload = s.one_of(f, "payload", &kinds);
    let payload = s.required(f, "payload", payload, "\"json\"");
    let time = pointer(f, &mut s, "time");
    let id = pointer(f, &mut s, "id");
    let link_quality = pointer(f, &mut s, "link_quality");
    let needs = pointer(f, &mut s, "needs");
    let remedy = (s.text(f, "needs_remedy"), s.text(f, "needs_remedy_zh"));
    let remedy = remedy.0.zip(remedy.1).map(|(en, zh)| Text { zh, en });
    if needs.is_some() != remedy.is_some() {
        let remedy = "say what to do when it is missing, in English and in Chinese";
        s.fault(f, "needs", "`needs`, `needs_remedy` and `needs_remedy_zh` go together", remedy);
    }
    let mut values = Vec::new();
    for section in s.sections(f, "value") {
        values.extend(value(f, section, payload, *source));
        *source = source.saturating_add(1);
    }
    if values.is_empty() {
        s.fault(f, "value", "a topic without a value", "add a [[topic.value]]");
    }
    s.finish(f);
    let needs = needs.zip(remedy);
    Some(Topic { pattern: pattern?, payload: payload?, time, id, link_quality, needs, values })
}

fn value(f: &mut Faults, mut s: Section, payload: Option<Payload>, source: u16) -> Option<Value> {
    let one = |v: &DeValue| v.as_str().filter(|t| is_pointer(t)).map(str::to_owned);
    let wanted = "a JSON pointer, as in \"/contact\", or a list of them; \"\" is the whole payload";
    let at = s.parsed(f, "at", wanted, |v| match v.as_array() {
        Some(list) => list.iter().map(|v| one(v.get_ref())).collect::<Option<Vec<_>>>().filter(|list| !list.is_empty()),
        None => one(v).map(|at| vec![at]),
    });
    let at = at.or_else(|| (payload == Some(Payload::Text)).then(|| vec![String::new()]));
    let at = s.required(f, "at", at, "\"/contact\"");
    if payload == Some(Payload::Text) && at.as_ref().is_some_and(|at| at.iter().any(|at| !at.is_empty())) {
        s.fault(f, "at", "a text has no parts", "remove `at`, or set payload = \"json\"");
    }
    let meaning = meaning(f, &mut s);
    s.finish(f);
    Some(Value { at: at?, source, meaning: meaning? })
}

fn pointer(f: &mut Faults, s: &mut Section, key: &'static str) -> Option<String> {
    s.parsed(f, key, "a JSON pointer, as in \"/time\"", |v| {
        v.as_str().filter(|t| !t.is_empty() && is_pointer(t)).map(str::to_owned)
    })
}

fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}

/// `{device}` must be in it, each level is a word, `+`, or one with placeholders; `#` would take what nobody asked for.
fn is_pattern(text: &str) -> bool {
    let placeholders = text.replace("{device}", "").replace("{part}", "");
    text.contains("{device}")
        && !placeholders.contains(['{', '}', '#', '$', '\0'])
        && text.split('/').all(|level| !level.is_empty() && (level == "+" || !level.contains('+')))
}

fn meaning(f: &mut Faults, s: &mut Section) -> Option<Meaning> {
    let states = states(f, s);
    let contact = s.flag(f, "contact", false);
    let alive = s.flag(f, "alive", false);
    let number = s.one_of(f, "number", &[("battery_mv", 0_u8), ("battery_percent", 1), ("fire", 2)]);
    let scale = s.number(f, "scale", -1e6..=1e6);
    let offset = s.number(f, "offset", -1e6..=1e6);
    let low_below = s.number(f, "low_below", 0.0..=20_000.0);
    let alarm_from = s.number(f, "alarm_from", -1e6..=1e6);
    let clear_below = s.number(f, "clear_below", -1e6..=1e6);
    let given =
        usize::from(states.is_some()) + usize::from(contact) + usize::from(alive) + usize::from(number.is_some());
    if given != 1 {
        let remedy = "give exactly one of `states`, `number`, `contact = true` and `alive = true`";
        s.fault(f, "states", "what this value means is not said, or said twice", remedy);
        return None;
    }
    let numeric = [("scale", scale), ("offset", offset), ("low_below", low_below)];
    for (key, _) in numeric.into_iter().filter(|(_, n)| number.is_none() && n.is_some()) {
        s.fault(f, key, "belongs to a number", "remove it, or set `number`");
    }
    let is_fire = number == Some(2);
    if !is_fire && (alarm_from.is_some() || clear_below.is_some()) {
        s.fault(f, "alarm_from", "belongs to number = \"fire\"", "remove it");
    }
    let quantity = match number {
        Some(0) => Quantity::BatteryMv { low_below },
        Some(1) => Quantity::BatteryPercent { low_below: low_below.unwrap_or(15.0) },
        Some(_) => match (alarm_from, clear_below) {
            (Some(alarm_from), Some(clear_below)) if clear_below < alarm_from => {
                Quantity::Fire { alarm_from, clear_below }
            }
            _ => {
                let remedy = "give `alarm_from` and a lower `clear_below`, in the unit after `scale` and `offset`";
                s.fault(f, "alarm_from", "a fire's limits are missing or the wrong way round", remedy);
                return None;
            }
        },
        None if contact => return Some(Meaning::Contact),
        None if alive => return Some(Meaning::Alive),
        None => return states.map(Meaning::States),
    };
    Some(Meaning::Number { quantity, scale: scale.unwrap_or(1.0), offset: offset.unwrap_or(0.0) })
}

fn states(f: &mut Faults, s: &mut Section) -> Option<BTreeMap<String, Vec<Fact>>> {
    let wanted = "a table of values and words, as in { \"true\" = \"door.closed\", \"false\" = \"door.open\" }";
    let listed = s.parsed(f, "states", wanted, |v| {
        let DeValue::Table(table) = v else { return None };
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in table {
            let words = match value.get_ref() {
                DeValue::String(word) => vec![word.to_string()],
                DeValue::Array(list) => {
                    list.iter().map(|w| w.get_ref().as_str().map(str::to_owned)).collect::<Option<_>>()?
                }
                _ => return None,
            };
            listed.insert(key.get_ref().to_string(), words);
        }
        (!listed.is_empty()).then_some(listed)
    })?;
    let mut states = BTreeMap::new();
    for (value, names) in listed {
        let mut facts = Vec::new();
        for name in names {
            match words::word(&name) {
                Some(fact) => facts.push(fact),
                None => {
                    let remedy = format!("write one of: {}", words::all_words());
                    s.fault(f, "states", format!("\"{name}\" (for {value}) is no word"), remedy);
                }
            }
        }
        states.insert(value, facts);
    }
    Some(states)
}

/// What the parts are alone but not together.
fn contradictions(f: &mut Faults, s: &Section, map: &Map, class: Option<DeviceClass>, has_cell: bool) {
    let values: Vec<(u8, &Meaning)> = match map {
        Map::Modbus(map) => map.points.iter().map(|point| (point.channel, &point.meaning)).collect(),
        Map::Mqtt(map) => map.topics.iter().flat_map(|t| &t.values).map(|value| (1, &value.meaning)).collect(),
    };
    let is_modbus = matches!(map, Map::Modbus(_));
    let key = if is_modbus { "point" } else { "topic" };
    let facts: Vec<(u8, Fact)> = values.iter().flat_map(|(n, m)| m.possible().into_iter().map(|f| (*n, f))).collect();
    for (channel, fact) in &facts {
        let of = if *channel == 0 { None } else { class };
        let is_open_class = class.is_none() && *channel != 0;
        if !is_open_class && !words::fits(of, fact) {
            let who = if *channel == 0 { "a unit itself (channel 0)" } else { "a device of this class" };
            s.fault(f, key, format!("{who} cannot say {fact:?}"), "correct `class`, `channel` or the words");
            break;
        }
    }
    if class.is_none() && values.iter().any(|(n, m)| *n != 0 && **m != Meaning::Contact && says_class(m)) {
        let remedy = "with class = \"any\" write `contact = true`; or give the profile its class";
        s.fault(f, "class", "words of one class in a profile for any class", remedy);
    }
    if is_modbus && facts.iter().any(|(_, fact)| *fact == Fact::Press) {
        let remedy = "write sos.held and sos.released: a register is polled, so a press is a level";
        s.fault(f, key, "sos.pressed is a moment", remedy);
    }
    if says_a_door_twice(map) {
        s.fault(f, key, "two values of one message or channel say whether a door is open", "keep one");
    }
    let tells_mv = facts.iter().any(|(_, fact)| matches!(fact, Fact::BatteryMv(_)));
    let tells_battery =
        facts.iter().any(|(_, fact)| matches!(fact, Fact::BatteryPercent(_) | Fact::Level(Facet::BatteryLow, _)));
    if tells_battery && !tells_mv && !has_cell {
        let remedy = "add its cell's voltage when empty and when full, as in `battery_mv_at = [2700, 3050]`";
        s.fault(f, "battery_mv_at", "is missing: the battery is told without a voltage", remedy);
    }
}

fn says_a_door_twice(map: &Map) -> bool {
    let says_door = |meaning: &Meaning| meaning.possible().iter().any(is_door);
    match map {
        Map::Mqtt(map) => {
            map.topics.iter().any(|topic| topic.values.iter().filter(|v| says_door(&v.meaning)).count() > 1)
        }
        Map::Modbus(map) => {
            let mut seen = BTreeSet::new();
            map.points.iter().filter(|point| says_door(&point.meaning)).any(|point| !seen.insert(point.channel))
        }
    }
}

fn is_door(fact: &Fact) -> bool {
    matches!(fact, Fact::Level(Facet::Door, _) | Fact::Contact(_))
}

fn says_class(meaning: &Meaning) -> bool {
    meaning.possible().iter().any(|fact| !words::fits(None, fact))
}
