//! Which run of which node speaks (W22, W23, W28).
//!
//! Owns what a Hello means: a new boot, another node, two nodes in one place, and what is lost by it. Refuses to serve another node than the
//! configured one.

use gengfu_alarm::observation::What;
use gengfu_contract::event::Origin;
use gengfu_contract::words::Text;
use gengfu_wire::{Hello, Uid};

use super::{Boot, Now, SWAP_LEAST, Session};
use crate::link::cursor::Cursor;
use crate::link::node_clock::NodeClock;
use crate::link::problem::Problem;
use crate::link::stats::Discard;

impl Session {
    pub(super) fn on_hello(&mut self, now: Now, hello: &Hello) {
        self.notice_clash(hello.uid);
        if let Some(expected) = self.config.uid()
            && expected != hello.uid
        {
            let (expected, heard) = (expected.to_string(), hello.uid.to_string());
            self.node_problem = Some(Problem::WrongUid { expected, heard });
            return self.discard(Discard::WrongUid, hello);
        }
        if let Some(before) = self.taken.uid.filter(|uid| *uid != hello.uid) {
            self.begin_anew(now, before, hello.uid);
        }
        self.taken.uid = Some(hello.uid);
        let same = self.boot.as_ref().is_some_and(|boot| boot.id == hello.boot && boot.uid == hello.uid);
        self.place_boot(now, hello, same);
        if !same {
            self.boot = Some(Boot {
                id: hello.boot,
                uid: hello.uid,
                capabilities: hello.capabilities,
                clock: NodeClock::default(),
            });
            self.stats.boots += 1;
            self.stats.uid = Some(hello.uid.to_string());
            self.stats.boot = Some(format!("{:08x}", hello.boot));
            self.stats.firmware = Some(hello.firmware.to_string());
            tracing::info!(node = %self.config.node, uid = %hello.uid, boot = format_args!("{:08x}", hello.boot), firmware = %hello.firmware, "node introduced itself");
        }
        self.note_numbered(hello.boot, hello.next_sequence);
        self.heard(now);
        self.clock_sample(now, hello.uptime_ms);
        self.say.on_hello();
    }

    /// Who introduces itself where another one did just now is not its replacement.
    fn notice_clash(&mut self, uid: Uid) {
        if let Some((other, at)) = self.introduced.replace((uid, self.awake))
            && other != uid
            && self.is_within(SWAP_LEAST, Some(at))
            && self.is_on_bus
        {
            self.clashed = Some(self.awake);
        }
    }

    /// Another node is in the place of the one that was here before. What that one numbered and did not deliver is gone with it (W23).
    fn begin_anew(&mut self, now: Now, before: Uid, uid: Uid) {
        if let Some(old) = self.taken.latest_boot() {
            self.tell_lost_by_reboot(now, before, old);
        }
        let text = Text {
            zh: format!("节点已更换：现在是 {uid}，之前是 {before}"),
            en: format!("another node is here than before: {uid}, it was {before}"),
        };
        let remedy = Text {
            zh: "如果是有意更换，请在配置中写入新的 uid；否则检查接线".into(),
            en: "if it was exchanged on purpose, write its uid into the configuration; if not, check the wiring".into(),
        };
        self.stats.warn(text, remedy);
        self.taken = Cursor::default();
        self.battery_told = None;
    }

    /// Sets where counting goes on in the boot that a Hello names.
    fn place_boot(&mut self, now: Now, hello: &Hello, same: bool) {
        let acknowledged = hello.unacked_from - 1;
        match self.taken.through(hello.boot) {
            None => {
                // A new boot (W23). What other gateways acknowledged is theirs.
                if let Some(old) = self.taken.latest_boot() {
                    self.tell_lost_by_reboot(now, hello.uid, old);
                }
                self.taken.set(hello.boot, acknowledged);
            }
            Some(through) if hello.next_sequence <= through => {
                // The node counts from the beginning under an old id. Better a number twice than an alarm not at all.
                self.warn_twin("节点重复使用了启动编号（W11）", "a node uses a boot id again (W11)");
                self.taken.set(hello.boot, acknowledged);
            }
            Some(through) => {
                if !same && self.taken.latest_boot() != Some(hello.boot) {
                    self.warn_twin(
                        "两个节点使用同一个唯一编号，或节点重复使用了启动编号（W11、W28）",
                        "two nodes speak with one unique id, or a node uses a boot id again (W11, W28)",
                    );
                }
                if acknowledged > through {
                    // The node forgot what it was acknowledged for, and this disk does not have it: it was set back.
                    let (first, count) = (through + 1, acknowledged - through);
                    self.tell_lost(now, hello.uid, hello.boot, first, count);
                }
                self.taken.set(hello.boot, through.max(acknowledged));
            }
        }
    }

    fn warn_twin(&mut self, zh: &str, en: &str) {
        let remedy = Text {
            zh: "给每个节点唯一的编号，每次启动唯一的启动编号".into(),
            en: "give each node its own unique id, and each boot its own boot id".into(),
        };
        self.stats.warn(Text { zh: zh.into(), en: en.into() }, remedy);
    }

    pub(super) fn note_numbered(&mut self, boot: u32, next_sequence: u32) {
        /// As many as a cursor has boots.
        const BOOTS_MAX: usize = 4;
        match self.numbered.iter_mut().find(|(known, _)| *known == boot) {
            Some((_, next)) => *next = (*next).max(next_sequence),
            None => {
                self.numbered.insert(0, (boot, next_sequence));
                self.numbered.truncate(BOOTS_MAX);
            }
        }
    }

    fn tell_lost_by_reboot(&mut self, now: Now, uid: Uid, old: u32) {
        let next = self.numbered.iter().find(|(boot, _)| *boot == old).map(|(_, next)| *next);
        let (Some(next), Some(through)) = (next, self.taken.through(old)) else { return };
        if let Some(count) = next.checked_sub(through + 1).filter(|count| *count > 0) {
            self.tell_lost(now, uid, old, through + 1, count);
            self.taken.set(old, next - 1);
        }
    }

    pub(super) fn tell_lost(&mut self, now: Now, uid: Uid, boot: u32, first: u32, count: u32) {
        tracing::warn!(node = %self.config.node, boot = format_args!("{boot:08x}"), first, count, "events lost");
        self.stats.events_lost += u64::from(count);
        let origin = Origin { node: uid.to_string(), boot, sequence: first };
        self.see(now, self.config.node.clone(), now.at, Some(origin), What::EventsLost { first, count });
    }
}
