//! The decider with its disk, as `crate::decide` works: judge, make observations, the engine's changes and the cursors durable at once, then answer.
//! When the disk refuses, the engine goes back to what it has.

use std::collections::BTreeMap;

use gengfu_alarm::Observation;
use gengfu_alarm::codes::CodeTable;
use gengfu_alarm::engine::Engine;
use gengfu_alarm::persist::StateChange;
use gengfu_alarm::rules::{DeviceClass as RuleClass, DeviceRule, Rules, Timing};
use rand::Rng;
use rand::rngs::StdRng;

use super::super::super::PortConfig;
use super::super::super::cursor::Cursor;
use super::super::super::line::Line;
use super::super::slug;
use super::at_us;
use crate::config::DeviceClass;

pub struct Disk {
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What is durable, with the time at which the gateway had taken it.
    pub journal: Vec<(u64, Observation)>,
    pub engine: Engine,
    /// Longest write, in microseconds.
    pub slow_us: u64,
    /// One write in so many is refused; 0: none.
    pub refuses: u32,
    /// Nothing is taken before.
    pub stuck_until_us: u64,
    pub commits: u64,
    rules: Rules,
    writing: Option<Writing>,
}

struct Writing {
    done_us: u64,
    taken: Vec<(u64, Observation)>,
    changes: Vec<StateChange>,
    cursors: Vec<(Vec<u8>, Vec<u8>)>,
    sessions: Vec<usize>,
}

/// Every node and channel of a port, by the rules' defaults.
pub fn rules(port: &PortConfig) -> Rules {
    let mut devices = BTreeMap::new();
    let bus = port.as_bus().map(|bus| bus.name.clone());
    if let Some(bus) = &bus {
        devices.insert(bus.clone(), DeviceRule { class: RuleClass::Bus, ..DeviceRule::default() });
    }
    for node in port.nodes() {
        let rule = DeviceRule { class: RuleClass::Node, parent: bus.clone(), ..DeviceRule::default() };
        devices.insert(node.node.clone(), rule);
        for (device, class) in node.channels.values() {
            let class = match class {
                DeviceClass::Door => RuleClass::Door,
                DeviceClass::Smoke => RuleClass::Smoke,
                _ => RuleClass::Sos,
            };
            devices
                .insert(device.clone(), DeviceRule { class, parent: Some(node.node.clone()), ..DeviceRule::default() });
        }
    }
    let codes = CodeTable::default();
    Rules { gateway: slug("gw"), devices, zones: BTreeMap::new(), codes, timing: Timing::default() }
}

impl Disk {
    pub fn new(port: &PortConfig) -> Disk {
        let rules = rules(port);
        let engine = Engine::new(rules.clone());
        let (state, journal) = (BTreeMap::new(), vec![]);
        let (slow_us, refuses, stuck_until_us, commits) = (0, 0, 0, 0);
        Disk { state, journal, engine, slow_us, refuses, stuck_until_us, commits, rules, writing: None }
    }

    /// How far a boot was stored.
    pub fn through(&self, boot: u32) -> Option<u32> {
        let cursors = self.state.iter().filter(|(key, _)| key.starts_with(b"link/"));
        cursors.filter_map(|(_, value)| Cursor::from_bytes(value).unwrap().through(boot)).max()
    }

    pub fn due_us(&self, line: &Line, now_us: u64) -> u64 {
        match &self.writing {
            Some(writing) => writing.done_us,
            None if line.sessions().iter().any(|it| it.has_batch()) => now_us.max(self.stuck_until_us),
            None => u64::MAX,
        }
    }

    /// `tick`: the engine's timers are looked at too.
    pub fn step(&mut self, now_us: u64, tick: bool, random: &mut StdRng, line: &mut Line) {
        if self.writing.is_none() && now_us >= self.stuck_until_us {
            self.judge(now_us, tick, random, line);
        }
        let Some(writing) = self.writing.take_if(|it| it.done_us <= now_us) else { return };
        let sessions = writing.sessions.clone();
        let refused = self.refuses > 0 && random.random_ratio(1, self.refuses);
        if refused {
            self.go_back();
        } else {
            self.keep(writing);
        }
        for session in sessions {
            let session = &mut line.sessions_mut()[session];
            if refused { session.failed() } else { session.committed() }
        }
    }

    fn judge(&mut self, now_us: u64, tick: bool, random: &mut StdRng, line: &mut Line) {
        let now = at_us(now_us);
        let mut writing =
            Writing { done_us: now_us, taken: vec![], changes: vec![], cursors: vec![], sessions: vec![] };
        for (index, session) in line.sessions_mut().iter_mut().enumerate() {
            let Some(batch) = session.take_batch() else { continue };
            for seen in batch.observations {
                assert!(seen.sensed_at <= now, "seen in the future: {seen:?}");
                self.engine.observe(now, &seen);
                writing.taken.push((now_us, seen));
            }
            writing.cursors.push((session.config().cursor_key(), batch.cursor.to_bytes()));
            writing.sessions.push(index);
        }
        let is_due = || tick && self.engine.next_due().is_some_and(|due| due <= now);
        if writing.sessions.is_empty() && !is_due() {
            return;
        }
        self.engine.tick(now);
        writing.changes = self.engine.take_changes();
        if self.slow_us > 0 {
            writing.done_us += random.random_range(0..self.slow_us);
        }
        self.writing = Some(writing);
    }

    fn keep(&mut self, writing: Writing) {
        self.commits += 1;
        for StateChange { key, value } in writing.changes {
            let key = [b"engine/".as_slice(), &key].concat();
            match value {
                Some(value) => drop(self.state.insert(key, value)),
                None => drop(self.state.remove(&key)),
            }
        }
        self.state.extend(writing.cursors);
        self.journal.extend(writing.taken);
    }

    fn go_back(&mut self) {
        let saved = self
            .state
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"engine/".as_slice())?.to_vec(), value.clone())));
        let (engine, notes) = Engine::restore(self.rules.clone(), saved);
        assert!(notes.is_empty(), "{notes:?}");
        self.engine = engine;
    }

    /// The process dies; a write on its way reached the disk or not, and nobody learns which.
    pub fn dies(&mut self, _now_us: u64, reached: bool) {
        if let Some(writing) = self.writing.take()
            && reached
        {
            self.keep(writing);
        }
        self.go_back();
    }
}
