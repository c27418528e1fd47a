//! Whose turn it is on a bus (W32).
//!
//! Owns the pace: who is due, who goes first, how a node that does not answer is asked less often without being forgotten, and what an answer says
//! about the wires. Refuses to know messages; it is told what came of an exchange.
//!
//! A node that answers is due [`IDLE_EVERY`] after it was last asked; at once when it said that it has more, and when something is to be said to it. Among
//! those due the one asked longest ago goes first, so none can go twice while another waits. A node that failed to answer [`DEAD_AFTER`] times in a
//! row is dead: all dead ones together are asked `n + 1` times in [`DEAD_EVERY`], evenly spread, each in turn; so none of them is
//! away for longer than that unnoticed, and a living one waits for at most one of them as long as fewer than eight are dead.

use std::time::Duration;

use super::GAP;

/// A node that answers and is silent otherwise is asked this often.
pub const IDLE_EVERY: Duration = Duration::from_millis(250);
/// A dead node is asked at least this often.
pub const DEAD_EVERY: Duration = Duration::from_secs(2);
/// So many questions without an answer make a node dead.
pub const DEAD_AFTER: u32 = 3;
/// Answers that are remembered of each node.
const REMEMBERED: u32 = 16;
/// Of these, so many that are broken are no noise any more. At a bit error rate of 1e-3 one `Done` in eight is broken.
const GARBLED: u32 = 12;
/// And so many are, where the wires are good.
const CLEAN: u32 = 4;

/// What came of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The node ended its answer.
    Done {
        /// It has more to say.
        more: bool,
    },
    /// It did, and something in it was broken.
    DoneAndBroken,
    /// It did not, but something of it was understood.
    Broken,
    /// Bytes came, and none of them made sense.
    Garbled,
    /// Nothing came.
    Nothing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    asked_at: Option<Duration>,
    due_at: Duration,
    misses: u32,
    /// The last answers, one bit each, the newest lowest: bytes came that made no sense.
    garbled: u16,
    answers: u32,
}

impl Turn {
    fn is_dead(&self) -> bool {
        self.misses >= DEAD_AFTER
    }
}

/// The turns of all nodes of a bus, by their index.
#[derive(Debug)]
pub struct Schedule {
    turns: Vec<Turn>,
    free_at: Duration,
    dead_asked_at: Duration,
}

impl Schedule {
    /// Nodes that were not asked yet.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { turns: vec![Turn::default(); nodes], free_at: Duration::ZERO, dead_asked_at: Duration::ZERO }
    }

    /// Who is to be asked now. `wants` says to whom something is to be said.
    pub fn next(&self, now: Duration, wants: impl Fn(usize) -> bool) -> Option<usize> {
        if now < self.free_at {
            return None;
        }
        let longest_ago = |node: &usize| self.turns[*node].asked_at;
        let dead = (0..self.turns.len()).filter(|node| self.turns[*node].is_dead()).min_by_key(longest_ago);
        if dead.is_some() && now >= self.dead_due_at() {
            return dead;
        }
        let is_due = |node: &usize| {
            let turn = &self.turns[*node];
            !turn.is_dead() && (now >= turn.due_at || (turn.misses == 0 && wants(*node)))
        };
        (0..self.turns.len()).filter(is_due).min_by_key(longest_ago)
    }

    /// When somebody is to be asked next, if nobody is asked now.
    #[must_use]
    pub fn due_at(&self, wants: impl Fn(usize) -> bool) -> Duration {
        let mut due_at = Duration::MAX;
        for (node, turn) in self.turns.iter().enumerate() {
            due_at = due_at.min(match turn {
                turn if turn.is_dead() => self.dead_due_at(),
                turn if turn.misses == 0 && wants(node) => self.free_at,
                turn => turn.due_at,
            });
        }
        due_at.max(self.free_at)
    }

    /// This node is being asked.
    pub fn asked(&mut self, now: Duration, node: usize) {
        self.turns[node].asked_at = Some(now);
        if self.turns[node].is_dead() {
            self.dead_asked_at = now;
        }
    }

    /// What came of it.
    pub fn answered(&mut self, asked_at: Duration, now: Duration, node: usize, answer: Answer) {
        self.free_at = now + GAP;
        let turn = &mut self.turns[node];
        let at_once = match answer {
            Answer::Done { more } => more,
            Answer::DoneAndBroken => true,
            Answer::Broken | Answer::Garbled => turn.misses == 0,
            Answer::Nothing => false,
        };
        turn.misses = match answer {
            Answer::Done { .. } | Answer::DoneAndBroken => 0,
            Answer::Broken | Answer::Garbled | Answer::Nothing => turn.misses.saturating_add(1),
        };
        if answer != Answer::Nothing {
            turn.garbled = turn.garbled << 1 | u16::from(answer == Answer::Garbled);
            turn.answers = turn.answers.saturating_add(1);
        }
        turn.due_at = if at_once { now } else { asked_at + IDLE_EVERY };
    }

    /// Whether this node does not answer.
    #[must_use]
    pub fn is_dead(&self, node: usize) -> bool {
        self.turns[node].is_dead()
    }

    /// Counts a node as dead without further questions: it is known to be elsewhere.
    pub fn give_up(&mut self, node: usize) {
        self.turns[node].misses = DEAD_AFTER;
    }

    /// Whether any node answers.
    #[must_use]
    pub fn is_anybody_there(&self) -> bool {
        self.turns.iter().any(|turn| turn.answers > 0 && !turn.is_dead())
    }

    /// Whether this node's answers are broken again and again where others' are not: several nodes speak at once.
    #[must_use]
    pub fn is_garbled(&self, node: usize) -> bool {
        let is_known = |turn: &Turn| turn.answers >= REMEMBERED;
        let turn = &self.turns[node];
        let is_clean = |other: &Turn| is_known(other) && !other.is_dead() && other.garbled.count_ones() <= CLEAN;
        is_known(turn) && turn.garbled.count_ones() >= GARBLED && self.turns.iter().any(is_clean)
    }

    fn dead_due_at(&self) -> Duration {
        let dead = self.turns.iter().filter(|turn| turn.is_dead()).count();
        self.dead_asked_at + DEAD_EVERY / (u32::try_from(dead).unwrap_or(u32::MAX).saturating_add(1))
    }
}
