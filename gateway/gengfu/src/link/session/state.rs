//! Whether the link works, and if not, why.
//!
//! Owns which of several causes is shown and told. Refuses to tell a blink: a link is down when its silence has lasted (W26).

use gengfu_alarm::observation::{Link, What};
use gengfu_contract::event::ClockQuality;
use gengfu_contract::slug::Slug;
use jiff::Timestamp;

use super::{CLASH_SHOWN, NOISE_BYTES, Now, Session};
use crate::link::problem::Problem;

impl Session {
    /// The bus of this node works, or nobody answers on it; told with this node's news.
    pub fn see_bus(&mut self, now: Timestamp, quality: ClockQuality, bus: &Slug, up: bool) {
        let link = if up {
            Link::Up
        } else {
            let problem = self.port_problem.clone().unwrap_or(Problem::BusSilent);
            Link::Down(self.down_text(&problem))
        };
        tracing::info!(%bus, ?link, "bus");
        self.see(Now { at: now, quality }, bus.clone(), now, None, What::Link(link));
    }

    /// What is wrong, as far as is known; the first that applies.
    fn problem(&self) -> Option<Problem> {
        let clash = self.is_within(CLASH_SHOWN, self.clashed);
        let clash = clash.then_some(Problem::AddressClash { address: self.config.address });
        self.port_problem.clone().or(clash).or_else(|| self.node_problem.clone())
    }

    /// Why nothing is heard.
    fn cause_of_silence(&self) -> Problem {
        match (self.is_on_bus, self.bus_answers) {
            _ if self.noise_bytes >= NOISE_BYTES => Problem::Baud { baud: self.baud },
            (false, _) => Problem::Silent,
            (true, true) => Problem::NoAnswer { address: self.config.address },
            (true, false) => Problem::BusSilent,
        }
    }

    pub(super) fn show(&mut self, now: Timestamp) {
        self.stats.update = self.update.as_ref().map(|update| update.progress().into());
        let silence = || (self.link_told != Some(true)).then(|| self.cause_of_silence());
        match self.problem().or_else(silence) {
            Some(problem) => self.stats.show_problem(now, &problem),
            None => self.stats.show_up(now),
        }
    }

    pub(super) fn tell_down(&mut self, now: Now) {
        let problem = self.problem().unwrap_or_else(|| self.cause_of_silence());
        let text = self.down_text(&problem);
        tracing::warn!(node = %self.config.node, "link down: {text}");
        self.link_told = Some(false);
        self.see(now, self.config.node.clone(), now.at, None, What::Link(Link::Down(text)));
    }

    fn down_text(&self, problem: &Problem) -> String {
        let (text, remedy) = (problem.text(), problem.remedy());
        let port = &self.port;
        format!("{port}：{}；{} / {port}: {}; {}", text.zh, remedy.zh, text.en, remedy.en)
    }
}
