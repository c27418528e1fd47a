//! What is to be said about one gateway: is everything here, and if not, what is missing, since when, and what became of it.
//!
//! Owns the judgement over the proof and the gateway's statement, and its words in both languages. Pure. The gateway keeps an item
//! "pending" until it has our receipt, so what is missing here must be pending there, or dropped there by its own count; what is neither
//! is lost. It refuses to call lost what the statement does not rule out.

use std::collections::BTreeMap;

use gengfu_contract::state::Statement;
use gengfu_contract::words::{Lane, Text};
use jiff::Timestamp;
use serde::Serialize;

use super::journals::{Gap, JournalView, Proof, Root};
use super::sequence::{Altered, SequenceLedger, WentBack};

/// Where a missing event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The gateway says that so many items still wait for our receipt: it may come.
    Pending,
    /// The gateway says that it dropped so many for want of room. Its journal on the box still has them.
    Dropped,
    /// The gateway neither has it pending nor says that it dropped it: it believes that the centre has it.
    Lost,
    /// The gateway has not stated anything since the gap was noticed.
    Unknown,
    /// Desks share the load: another one may have it. `gengfu desk report` over all their journals tells.
    Elsewhere,
}

/// One thing to be said about a gateway's completeness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Events that were not received.
    Missing {
        /// First.
        first: u64,
        /// Last.
        last: u64,
        /// Since when the desk knows that they exist.
        since: Timestamp,
        /// What became of them.
        fate: Fate,
    },
    /// An event was changed after the gateway hashed it.
    Changed {
        /// Which.
        sequence: u64,
    },
    /// An event does not follow the one before it; one of the two was changed.
    Broken {
        /// The later of the two.
        at: u64,
    },
    /// The event is not the one the gateway states under this number.
    WrongHead {
        /// Which.
        sequence: u64,
    },
    /// A copy said something else under an id that was here already; it was not received.
    Altered(Altered),
    /// The gateway goes on from an older state of its journal: its disk was set back, or copied to another box.
    Forked {
        /// The last event that both have.
        after: u64,
        /// The first event of the second journal came then.
        since: Timestamp,
    },
    /// A second journal under the same name begins with event 1: the box was replaced, or its disk erased.
    Reborn {
        /// The first event of the second journal came then.
        since: Timestamp,
    },
    /// A second journal whose beginning was not received.
    SecondJournal {
        /// Its first event that was received.
        first: u64,
        /// When that came.
        since: Timestamp,
    },
    /// The gateway states fewer events than before.
    WentBack(WentBack),
    /// The gateway says that it dropped items for want of room.
    Dropped {
        /// How many, by lane, since its beginning.
        items: BTreeMap<Lane, u64>,
    },
    /// The gateway says that it gave up items that could never be sent, as a picture whose file is gone.
    Abandoned {
        /// How many, by lane, since its beginning.
        items: BTreeMap<Lane, u64>,
    },
    /// The gateway is online and has not stated its journal since.
    NoStatement {
        /// Since when.
        since: Timestamp,
    },
}

impl Finding {
    /// Something is wrong. False for what only waits.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self, Finding::Missing { fate: Fate::Pending | Fate::Unknown | Fate::Elsewhere, .. })
    }

    /// The finding for people.
    #[must_use]
    pub fn text(&self) -> Text {
        let (zh, en) = match self {
            Finding::Missing { first, last, since, fate } => missing(*first, *last, *since, *fate),
            Finding::Changed { sequence } => (
                format!("#{sequence} 离开网关后被改动"),
                format!("#{sequence} was changed after the gateway hashed it"),
            ),
            Finding::Broken { at } => (
                format!("#{at} 与前一条不衔接，两条之一被改动"),
                format!("#{at} does not follow the one before it; one of the two was changed"),
            ),
            Finding::WrongHead { sequence } => (
                format!("#{sequence} 的哈希与网关声明不符"),
                format!("#{sequence} is not the event that the gateway states"),
            ),
            Finding::Altered(Altered { sequence, id, at }) => (
                format!("#{sequence}（{id}）于 {} 收到内容不同的副本，未回执", time(*at)),
                format!("#{sequence} ({id}): a copy with other content came at {} and was not received", time(*at)),
            ),
            Finding::Forked { after, since } => (
                format!("{} 起网关从 #{after} 之后另起日志：磁盘被恢复到旧状态", time(*since)),
                format!("since {} the gateway goes on anew after #{after}: its disk was set back", time(*since)),
            ),
            Finding::Reborn { since } => (
                format!("{} 起同名网关从 #1 重新记日志：设备被更换或磁盘被清空", time(*since)),
                format!("since {} another journal begins at #1: the box was replaced or erased", time(*since)),
            ),
            Finding::SecondJournal { first, since } => (
                format!("{} 起收到同名网关的另一份日志，首条 #{first}", time(*since)),
                format!("since {} there is a second journal of this gateway, first seen at #{first}", time(*since)),
            ),
            Finding::WentBack(WentBack { from, to, at, .. }) => (
                format!("{} 网关声明的条数从 {from} 退回 {to}", time(*at)),
                format!("at {} the gateway stated {to} events where it had stated {from}", time(*at)),
            ),
            Finding::Dropped { items } => {
                let items: Vec<_> = items.iter().map(|(lane, count)| format!("{lane} {count}")).collect();
                (
                    format!("网关因存储已满丢弃：{}", items.join("，")),
                    format!("dropped by the gateway for want of room: {}", items.join(", ")),
                )
            }
            Finding::Abandoned { items } => {
                let items: Vec<_> = items.iter().map(|(lane, count)| format!("{lane} {count}")).collect();
                (
                    format!("网关放弃了无法发送的内容：{}", items.join("，")),
                    format!("given up by the gateway, could not be sent: {}", items.join(", ")),
                )
            }
            Finding::NoStatement { since } => (
                format!("{} 起没有收到网关的日志声明", time(*since)),
                format!("no statement of the gateway's journal since {}", time(*since)),
            ),
        };
        Text { zh, en }
    }
}

fn missing(first: u64, last: u64, since: Timestamp, fate: Fate) -> (String, String) {
    let range = if first == last { format!("#{first}") } else { format!("#{first}…{last}") };
    let (zh, en) = match fate {
        Fate::Pending => ("网关说明仍待送达", "the gateway says it is still pending"),
        Fate::Dropped => ("网关说明因存储已满已丢弃", "the gateway says it was dropped for want of room"),
        Fate::Lost => ("已丢失：网关认为中心已收到", "LOST: the gateway believes that the centre has it"),
        Fate::Unknown => ("等待网关的下一次声明", "the gateway's next statement will tell"),
        Fate::Elsewhere => ("可能由共同分担的另一坐席收到", "another desk that shares the load may have it"),
    };
    (format!("缺 {range}，自 {} 起；{zh}", time(since)), format!("missing {range} since {}; {en}", time(since)))
}

fn time(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// A statement, and when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Stated {
    /// What the gateway said.
    pub statement: Statement,
    /// When it came.
    pub received_at: Timestamp,
}

/// What there is to say, worst things first. `is_shared`: desks share one subscription, so each has only a part.
#[must_use]
pub fn judge(ledger: &SequenceLedger, stated: Option<&Stated>, is_shared: bool) -> Vec<Finding> {
    let proof = ledger.proof();
    let mut findings: Vec<Finding> = proof
        .gaps
        .iter()
        .map(|gap| {
            let fate = if is_shared { Fate::Elsewhere } else { fate(gap, &proof, stated) };
            Finding::Missing { first: gap.first, last: gap.last, since: gap.since, fate }
        })
        .collect();
    let (changed, broken) = proof.changed();
    if !is_shared || proof.missing.is_empty() {
        findings.extend(changed.into_iter().map(|sequence| Finding::Changed { sequence }));
        findings.extend(broken.into_iter().map(|at| Finding::Broken { at }));
    }
    findings.extend(proof.wrong_heads.iter().map(|&sequence| Finding::WrongHead { sequence }));
    findings.extend(ledger.altered().iter().cloned().map(Finding::Altered));
    findings.extend(proof.journals.iter().skip(1).map(second_journal));
    findings.extend(ledger.went_back().iter().cloned().map(Finding::WentBack));
    if let Some(Stated { statement, .. }) = stated {
        let some = |items: &BTreeMap<Lane, u64>| -> BTreeMap<Lane, u64> {
            items.iter().filter(|(_, count)| **count > 0).map(|(lane, count)| (*lane, *count)).collect()
        };
        let (dropped, abandoned) = (some(&statement.dropped), some(&statement.abandoned));
        findings.extend((!dropped.is_empty()).then_some(Finding::Dropped { items: dropped }));
        findings.extend((!abandoned.is_empty()).then_some(Finding::Abandoned { items: abandoned }));
    }
    findings.sort_by_key(|finding| !finding.is_fault());
    findings
}

fn second_journal(journal: &JournalView) -> Finding {
    let JournalView { first, since, root, .. } = *journal;
    match root {
        Root::Birth => Finding::Reborn { since },
        Root::Fork { after } => Finding::Forked { after, since },
        Root::Unknown => Finding::SecondJournal { first, since },
    }
}

/// Pictures have no number of their own: only the other lanes count.
fn events(items: &BTreeMap<Lane, u64>) -> u64 {
    items.iter().filter(|(lane, _)| **lane != Lane::Evidence).fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
}

fn fate(gap: &Gap, proof: &Proof, stated: Option<&Stated>) -> Fate {
    let Some(Stated { statement, received_at }) = stated else { return Fate::Unknown };
    // Of an older journal the statement says nothing more: that box or disk is gone.
    if gap.journal + 1 < proof.journals.len() {
        return Fate::Lost;
    }
    if *received_at < gap.since || statement.sequence < gap.last {
        return Fate::Unknown;
    }
    let missing = proof.missing_events;
    let pending = events(&statement.pending);
    let dropped = events(&statement.dropped).saturating_add(events(&statement.abandoned));
    // Everything journaled before the oldest pending item is settled for the gateway.
    let is_settled = match (statement.oldest_pending_at, gap.recorded_before) {
        (Some(oldest), Some(recorded)) => recorded < oldest,
        _ => false,
    };
    if pending > 0 && !is_settled && missing <= pending.saturating_add(dropped) {
        Fate::Pending
    } else if dropped > 0 && missing <= pending.saturating_add(dropped) {
        Fate::Dropped
    } else {
        Fate::Lost
    }
}

#[cfg(test)]
mod tests;
